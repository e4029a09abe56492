"""What a page carries of a trace: names and parameters of its payloads."""

from __future__ import annotations

from collections.abc import Iterator

from hallutrace.viewer.data.attention import attention_parameters
from hallutrace.viewer.data.trace_marginals import marginal_titles
from hallutrace.viewer.viewed_run import ViewedRun

HEADS_BYTES = 1 << 16  # of one marginal in all heads, float16


def trace_parts(
    viewed: ViewedRun, key: str, *, edges: bool = True
) -> Iterator[tuple[str, dict[str, str]]]:
    """Payloads of one trace, as :func:`hallutrace.viewer.providers.payload_of` takes them.

    Args:
        viewed: the run.
        key: of the trace, see :attr:`ViewedRun.key_texts`.
        edges: whether its attention graphs are among them.

    Returns:
        Names and parameters. Marginals of single heads are left out where one of them takes more
        than 64 kB.

    Examples:
        >>> viewed = ViewedRun(hallutrace.open(run))
        >>> key = viewed.key_texts[0]
        >>> [name for name, _ in trace_parts(viewed, key, edges=False)][:2]
        ['trace', 'token_heads']
    """
    trace = viewed.trace(key)
    yield "trace", {"trace": key}
    if edges:
        yield from (("attention", one) for one in attention_parameters(trace, key))
    heads = trace.manifest.facts["heads"]
    if len(heads) * max(heads) * len(trace.tokens) * 2 <= HEADS_BYTES:
        for name in marginal_titles(trace):
            yield "token_heads", {"trace": key, "marginal": name}
