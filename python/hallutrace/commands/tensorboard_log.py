"""Epochs of a training as scalars of TensorBoard."""

from __future__ import annotations

from pathlib import Path

from hallutrace.errors import MissingExtraError

SCALARS = ("loss", "validation_auroc", "learning_rate", "gradient", "seconds")


class TensorBoardLog:
    """Writes the epochs of a training, and those from before a kill, as they are finished.

    Args:
        folder: for the event files.
        work: folder of the training, whose ``history.jsonl`` is followed; a detector of several
            networks has a folder for each, whose name goes before that of the scalar.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError.of("tensorboard", "tensorboard", "--tensorboard") from None
        self._work = work
        self._cursors: dict[Path, str] = {}
        # All epochs are written again: those of an earlier process are dropped.
        self._writer = SummaryWriter(str(folder), purge_step=1)

    def follow(self) -> None:
        """Writes what the training wrote since the last call."""
        from hallutrace.detect.nets.history_log import LOG, read_since

        for path in sorted(self._work.rglob(LOG)):
            news, self._cursors[path] = read_since(path.parent, self._cursors.get(path))
            network = path.parent.relative_to(self._work).as_posix()
            begin = "" if network == "." else f"{network}/"
            for epoch in news.epochs:
                for name in SCALARS:
                    value = getattr(epoch, name)
                    self._writer.add_scalar(begin + name, value, epoch.epoch)
        self._writer.flush()
