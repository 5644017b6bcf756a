"""What becomes of many pictures and videos: what was written, what failed, how far it has come."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.dist import get_dist_info
from torch.distributed import all_gather_object

from danseg.apis.finished import Record, Stamp
from danseg.apis.sources import Source
from danseg.engine.stalled import note_progress
from danseg.errors import StopsAllError, UserError
from danseg.io.parallel import progress_bar
from danseg.shipped import as_started


@dataclass
class Tally:
    """What became of the sources.

    Attributes:
        predicted: how many were predicted.
        failures: a message for each that could not be.
        written: the files.
    """

    predicted: int = 0
    failures: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)


class Progress:
    """Keeps the tally, the record of the output folder and the progress bar of one run.

    Args:
        record: of the output folder.
        total: how many sources there are to predict.
        shown: whether to draw a bar, if stderr is a terminal.
    """

    def __init__(self, record: Record, total: int, shown: bool = True) -> None:
        self.record, self.tally = record, Tally()
        self.bar = progress_bar(shown)
        self._task = self.bar.add_task("pictures", total=total)
        self._total = total

    def done(self, source: Source, read_as: Stamp, files: Mapping[str, list[Path]]) -> None:
        """All outputs of a source are whole; ``read_as`` is its stamp before it was read."""
        self.record.note(source, read_as, files)
        self.tally.predicted += 1
        self.tally.written += [path for paths in files.values() for path in paths]
        self._advance(source)

    def failed(self, source: Source, error: UserError) -> None:
        """A source cannot be predicted, and is skipped.

        Raises:
            UserError: what stopped it stops all.
        """
        if isinstance(error, StopsAllError):
            raise error
        message = as_started(str(error))
        self.tally.failures.append(message)
        if self._total > 1:  # of a single one it is said at the end
            print(f"skipped: {message}", file=sys.stderr)
        self._advance(source)

    def _advance(self, source: Source) -> None:
        self.bar.advance(self._task)
        note_progress(f"at {source.path}")


def together(tally: Tally) -> Tally:
    """The tallies of all processes of a run as one, the same in all of them."""
    if get_dist_info()[1] == 1:
        return tally
    tallies: list[Tally] = [tally] * get_dist_info()[1]
    all_gather_object(tallies, tally)
    return Tally(
        sum(one.predicted for one in tallies),
        [message for one in tallies for message in one.failures],
        [path for one in tallies for path in one.written],
    )
