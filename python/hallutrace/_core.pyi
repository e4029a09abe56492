"""The Rust core: plain functions over numpy arrays, wrapped by the modules of the package."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "LayerReducer",
    "LayerReduction",
    "Shard",
    "ShardWriter",
    "_panic",
    "_use_instruction_set",
    "get_threads",
    "instruction_set",
    "instruction_sets",
    "marginals",
    "publish",
    "set_threads",
    "sparsify",
    "take_published",
    "write_new",
]

# indptr, keys, weights, retained, shape, first_query; see ``hallutrace.EdgeList``.
_Edges: TypeAlias = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int32],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    tuple[int, int, int],
    int,
]

def sparsify(
    attention: npt.NDArray[Any],
    bfloat16: bool,
    *,
    top_k: int | None,
    min_weight: float,
    top_mass: float | None,
    heads: str,
    causal: bool,
    first_query: int | None,
) -> _Edges:
    """Edges of [heads, queries, keys] or [queries, keys], see ``hallutrace.sparsify``.

    Returns:
        indptr [heads * queries + 1], keys [edges], weights [edges], retained [heads, queries],
        shape, first_query.
    """

def marginals(
    attention: npt.NDArray[Any],
    bfloat16: bool,
    *,
    segments: Sequence[int],
    causal: bool,
    first_query: int | None,
) -> tuple[
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
]:
    """diagonal, previous, received, entropy, square, mass, rough; see ``hallutrace.marginals``."""

def set_threads(count: int | None) -> None:
    """Sets how many threads a call works on at most; results do not depend on it.

    Args:
        count: as many; None for RAYON_NUM_THREADS, or the cores that the process may use.

    Raises:
        InputError: a count below 1.
    """

def get_threads() -> int:
    """How many threads a call works on at most."""

def _panic() -> None:
    """Fails inside, for tests.

    Raises:
        InternalError: always.
    """

def instruction_set() -> str:
    """The instruction set in use: "avx512", "avx2" or "plain".

    It is the fastest that the machine has, or what the environment variable HALLUTRACE_SIMD names;
    results have the same bits on all of them.

    Raises:
        InputError: HALLUTRACE_SIMD names none that the machine has.
    """

def instruction_sets() -> list[str]:
    """The instruction sets that the machine has, the fastest first."""

def _use_instruction_set(name: str | None) -> None:
    """Makes a set the one in use on this thread, for tests and benches; None undoes it.

    Raises:
        InputError: the machine has it not.
    """

@final
class LayerReducer:
    """One layer of one batch of right-padded sequences, given block by block of query rows."""

    def __new__(
        cls,
        heads: int,
        sequences: Sequence[tuple[int, int, Sequence[int]]],
        *,
        top_k: int | None,
        min_weight: float,
        top_mass: float | None,
        combine: str,
        answer_edges: bool,
        all_marginal_rows: bool,
    ) -> LayerReducer:
        """A reducer that waits for row 0.

        Args:
            heads: heads of the layer.
            sequences: tokens N, prompt tokens P (1 <= P < N) and segment boundaries of each.
            top_k: as for ``sparsify``.
            min_weight: as for ``sparsify``.
            top_mass: as for ``sparsify``.
            combine: "mean", "max" or "each".
            answer_edges: edges of rows P - 1 .. N - 1 alone; other rows are empty.
            all_marginal_rows: previous, entropy, square, mass and rough of all N rows, not of
                P - 1 .. N - 1 alone.
        """

    def push(self, attention: npt.NDArray[Any], bfloat16: bool, first_query: int) -> None:
        """Takes the block of rows that follows.

        Args:
            attention: [sequences, heads, rows, keys], readable in place: float32, float16, or
                uint16 with the bits of bfloat16. Row r is token first_query + r; at least
                first_query + rows keys for rows that are not padding. Padding is not read.
            bfloat16: whether ``attention`` holds bfloat16.
            first_query: the token of row 0, which follows the last row of the block before.

        Raises:
            InputError: a block of another shape or out of order, or a bad weight; the reducer then
                stands as before.
        """

    def finish(self) -> list[LayerReduction]:
        """One reduction per sequence; the reducer is spent.

        Raises:
            InputError: rows are missing, or a graph has more than 2**31 - 1 edges.
        """

@final
class LayerReduction:
    """What a layer of one sequence comes to: G graphs (1 or heads), R rows (A + 1, or all N)."""

    @property
    def indptr(self) -> npt.NDArray[np.int32]:
        """[G, N + 1], each graph's from 0."""
    @property
    def keys(self) -> npt.NDArray[np.int32]:
        """[edges], ordered by graph, query, key."""
    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """[edges]."""
    @property
    def diagonal(self) -> npt.NDArray[np.float32]:
        """[heads, N]."""
    @property
    def received_mean(self) -> npt.NDArray[np.float32]:
        """[heads, N], mean over rows i with j < i <= N - 2, 0 where there is none."""
    @property
    def previous(self) -> npt.NDArray[np.float32]:
        """[heads, R]."""
    @property
    def entropy(self) -> npt.NDArray[np.float32]:
        """[heads, R], in nats."""
    @property
    def square(self) -> npt.NDArray[np.float32]:
        """[heads, R], sum of the row's squared weights."""
    @property
    def mass(self) -> npt.NDArray[np.float32]:
        """[heads, R, segments]."""
    @property
    def rough(self) -> npt.NDArray[np.float32]:
        """[heads, R, segments], norm of the second differences along the keys of a segment."""
    @property
    def log_diagonal(self) -> npt.NDArray[np.float32]:
        """[heads, 2], mean ln(max(diagonal, 2^-126)) over rows 0 .. P - 1 and P .. N - 1."""
    @property
    def log_square(self) -> npt.NDArray[np.float32]:
        """[heads, 2], the same of the sums of squared weights, of all N rows."""

@final
class ShardWriter:
    """Streams traces into a shard; the header comes last, so a part of one is never read as one."""

    def __new__(
        cls,
        run: str | PathLike[str],
        name: str,
        identity: str,
        traces: int,
        description: str,
        *,
        edge_weight: str = "float16",
        hidden: str = "float32",
    ) -> ShardWriter:
        """Begins a shard in ``partial/`` of a run, or goes on with it where its journal ends.

        Who goes on works on files of its own: a process that did so before and wakes up cannot
        write into them. What no header could hold is refused before anything is written.

        Args:
            run: folder with ``partial`` and ``shards``.
            name: of the shard.
            identity: what was begun as another is discarded.
            traces: how many there may be; the header gets 2048 + 3072 * traces bytes, and more at
                the end where long ids need it.
            description: what is known of the shard, as JSON: digest, environment, fingerprint,
                first, name, questions.
            edge_weight: stored type of edge weights, "float16" or "float32".
            hidden: stored type of hidden states: "float32", "float16", "bfloat16" or "int8".

        Raises:
            InputError: more traces, or a longer description, than a header can hold.
            UnrecordedError: a finished shard lies in ``shards``; see :func:`take_published`.
            SupersededError: another process began at the same time.
            StorageError: the files cannot be made.
        """

    def append(
        self, number: int, id: str, sample: int, arrays: dict[str, npt.NDArray[Any]]
    ) -> None:
        """Writes one trace.

        Args:
            number: of the trace in the shard.
            id: the question's.
            sample: which answer of its question.
            arrays: tensors by their names in schema 2, in C order; float32 becomes what is stored,
                edge keys are int32, bfloat16 is given as its bits in uint16, ``meta`` as uint8.

        Raises:
            InputError: shapes that do not agree, numbers that the stored type cannot hold, or an id
                of thousands of characters; the shard stands as before.
            StorageError: the file system refused, and the writer is spent: it refuses whatever
                follows; or it was, or the shard is finished.
        """

    def append_from(self, shard: Shard, position: int, number: int) -> None:
        """Writes a trace of another shard, byte for byte, under a number of this one.

        Args:
            shard: that holds it.
            position: of the trace in that shard.
            number: of the trace in this one.

        Raises:
            DamagedError: the trace is not what its checksums say.
            StorageError: the file system refused.
        """

    def end_batch(self, note: str) -> None:
        """Ends a batch, which is what can be gone on after; batches are synced in groups.

        Args:
            note: handed back by :meth:`notes` to whoever goes on.

        Raises:
            SupersededError: another process goes on with the shard; the writer is spent.
            StorageError: the file system refused, and the writer is spent; or it was.
        """

    def sync(self) -> None:
        """Makes all batches that have ended durable now.

        Raises:
            SupersededError: another process goes on with the shard; the writer is spent.
            StorageError: the file system refused, and the writer is spent; or it was.
        """

    def check_names(self) -> None:
        """Asks whether the shard in ``partial`` is still this writer's; each sync does so as well.

        Raises:
            SupersededError: another process goes on with the shard.
            StorageError: the file system refused.
        """

    def notes(self) -> list[str]:
        """The notes of the batches that are in the shard, in their order."""

    def finish(
        self, counts: dict[str, int], indices: Sequence[int], halvings: Sequence[Sequence[int]]
    ) -> tuple[int, str]:
        """Writes the header, syncs, verifies, moves to ``shards`` without replacing, syncs again.

        Args:
            counts: by name.
            indices: row in the source of each trace, in the order of their numbers.
            halvings: number and size of batches that were halved.

        Returns:
            Bytes of the file, and its XXH3 in hexadecimal.

        Raises:
            InputError: other indices than traces; the shard stands as before.
            SupersededError: another process goes on with the shard.
            StorageError: the file system refused, or the shard exists; or the writer is spent.
            DamagedError: the disk gave other bytes back.
        """

    def forget(self) -> None:
        """Removes the journal: the shard is committed, or is to begin anew.

        A journal of another process that goes on with the shard is left alone.

        Raises:
            StorageError: the file system refused.
        """

    @property
    def syncing(self) -> float:
        """Seconds spent waiting for syncs."""

    @property
    def data_bytes(self) -> int:
        """Bytes of the traces written so far."""

    def __len__(self) -> int:
        """Traces written so far."""

@final
class Shard:
    """A shard open for reading; its file is mapped, its header checked strictly."""

    def __new__(cls, path: str | PathLike[str], *, verify: str = "first") -> Shard:
        """Opens a shard.

        Args:
            path: of the file.
            verify: when data is checked: "first" time it is read, "always", or "never".

        Raises:
            StorageError: the file cannot be read.
            DamagedError: a header that schema 2 does not have.
        """

    def __len__(self) -> int:
        """Traces in the shard."""

    @property
    def bytes(self) -> int:
        """Size of the file."""

    def keys(self) -> list[tuple[int, str, int]]:
        """Number, question id and sample of each trace, in the order of the file."""

    def commit(self) -> str:
        """What the shard says of itself, as canonical JSON.

        Counts, digest, environment, fingerprint, first, halvings, indices (in the order of the
        traces' numbers), name and questions: its commit record but for keys, size and checksum.
        """

    def tensor(
        self, position: int, name: str
    ) -> tuple[str, tuple[int, ...], npt.NDArray[np.uint8]] | None:
        """One tensor of the trace at ``position``, checked against its checksum the first time.

        Returns:
            Element type as safetensors names it, shape, and a read-only view of the bytes; None
            where the trace has no such tensor.

        Raises:
            DamagedError: bytes that do not match their checksum.
        """

    def layer(self, position: int, at: int, heads: int, combine: str) -> _Edges:
        """The edges of one layer of the trace at ``position``; see ``hallutrace.Trace.layer``.

        Args:
            position: of the trace.
            at: place of the layer among those captured.
            heads: how many the layer has.
            combine: how they were combined: "mean", "max" or "each".

        Returns:
            indptr, keys, weights, retained, shape, first_query; see ``hallutrace.EdgeList``.

        Raises:
            DamagedError: bytes that do not match their checksum, or no such layer.
        """

    def digest(self) -> str:
        """XXH3 of the whole file, in hexadecimal.

        Raises:
            DamagedError: the file was cut short since it was opened.
        """

    def verify(self) -> None:
        """Checks every checksum and every rule of the data.

        Raises:
            DamagedError: naming the first thing that is wrong.
        """

def take_published(
    run: str | PathLike[str], name: str
) -> tuple[str, list[tuple[int, str, int]], int, str] | None:
    """A finished shard of a run, every byte of it checked, for who finds it without its record.

    Its name is made durable, so that a record may follow; what else writing it left is removed.

    Args:
        run: folder with ``partial`` and ``shards``.
        name: of the shard.

    Returns:
        :meth:`Shard.commit`, :meth:`Shard.keys`, bytes of the file and its XXH3 in hexadecimal;
        None where there is no finished shard.

    Raises:
        DamagedError: it is damaged.
        StorageError: the file system refused.
    """

def publish(scratch: str | PathLike[str], to: str | PathLike[str]) -> None:
    """Moves a synced file to its final name, never over another, and syncs the folders.

    Raises:
        StorageError: the file system refused, or ``to`` exists.
    """

def write_new(scratch: str | PathLike[str], to: str | PathLike[str], content: bytes) -> None:
    """Writes a small file durably and never over another; it lies at ``scratch`` until it is whole.

    Raises:
        StorageError: the file system refused, or ``to`` exists.
    """
