"""Predict many pictures and videos from files to files: read ahead, in batches, written aside, resumable.

The list is cut into portions. Pictures of a portion that have the same size behind the test pipeline go
through the network together. A portion is always cut and batched the same way, whoever predicts it and
however much of it is finished: in a batch the last bits of a sum may change, and files must not depend on
where an earlier run was stopped, or on the number of processes.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danseg.apis.batches import Batches, NotTakenError, size_of
from danseg.apis.finished import Stamp, stamp
from danseg.apis.outputs import Kinds, Writer
from danseg.apis.pictures import load
from danseg.apis.sources import PICTURE, Source
from danseg.apis.tally import Progress
from danseg.apis.videos import predict_video
from danseg.engine.dealt_work import dealt
from danseg.errors import UserError
from danseg.io.parallel import available_cpus


def predict_one_by_one(
    progress: Progress, sources: Sequence[Source], work: Callable[[Source], dict[str, list[Path]]]
) -> None:
    """Predict pictures with a function that goes from a source to files.

    Args:
        progress: is told what becomes of each.
        sources: what to predict; each of a run's processes takes some of them.
        work: returns what it wrote, by kind.

    Raises:
        UserError: there is no room to write, or too little memory.
    """
    with progress.bar:
        for number in dealt(len(sources), "pictures"):
            source, read_as = sources[number], stamp(sources[number])
            try:
                if source.kind != PICTURE:
                    raise UserError(f"{source.kind} {source.path}: --tiles and --attention are for images")
                progress.done(source, read_as, work(source))
            except UserError as error:
                progress.failed(source, error)


@dataclass(frozen=True)
class _Read:
    """A picture that has been read, ready for the network."""

    source: Source
    read_as: Stamp
    picture: np.ndarray | None
    sample: dict


class BatchJob:
    """Predicts in batches, with threads that read and write.

    Args:
        batches: the network.
        writer: writes the outputs.
        kinds: what to write.
        progress: is told what becomes of each source.
        workers: the number of threads; None for one a processor, and two at the least.
    """

    def __init__(
        self,
        batches: Batches,
        writer: Writer,
        kinds: Kinds,
        progress: Progress,
        workers: int | None = None,
    ) -> None:
        self._batches, self._writer, self._kinds, self._progress = batches, writer, kinds, progress
        self._workers = workers or max(2, available_cpus())
        self._ahead = batches.portion + self._workers  # so many pictures are read, and so many to be written
        self._writes: deque[tuple[_Read, Future]] = deque()
        self._wanted: Collection[str] = ()

    def carry_out(self, sources: Sequence[Source], wanted: Collection[str]) -> None:
        """Predict.

        Args:
            sources: all of the run, also those that are finished.
            wanted: names of those to predict.

        Raises:
            UserError: there is no room to write, or too little memory.
        """
        self._wanted = wanted
        todo = [one for one in self._portions(sources) if any(source.name in wanted for source in one)]
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="pictures")
        try:
            with self._progress.bar:
                self._in_batches(todo)
                self._collect(0)
        finally:
            self._pool.shutdown(cancel_futures=True)
            for one, write in self._writes:  # whatever stops the run: what is whole is finished
                if write.done() and not write.cancelled() and write.exception() is None:
                    with contextlib.suppress(UserError):
                        self._progress.record.note(one.source, one.read_as, write.result())

    def _portions(self, sources: Sequence[Source]) -> list[list[Source]]:
        """Pictures in portions, in their order, then each video and camera by itself."""
        pictures = [source for source in sources if source.kind == PICTURE]
        size = self._batches.portion
        cut = [pictures[at : at + size] for at in range(0, len(pictures), size)]
        return [*cut, *([source] for source in sources if source.kind != PICTURE)]

    def _in_batches(self, todo: Sequence[list[Source]]) -> None:
        groups: dict[tuple, list[_Read]] = {}  # by size
        for source, read in self._read_ahead(todo):
            if source is None:  # the end of a portion
                while groups:
                    self._predict(groups.pop(next(iter(groups))))
                continue
            try:
                one = read.result()
            except UserError as error:
                if source.name in self._wanted:
                    self._progress.failed(source, error)
                continue
            size = size_of(one.sample)
            groups.setdefault(size, []).append(one)
            if len(groups[size]) == self._batches.limit(one.sample):
                self._predict(groups.pop(size))

    def _read_ahead(self, todo: Sequence[list[Source]]) -> Iterator[tuple[Source | None, Future]]:
        """Pictures, with the futures of what is read of them, and a None behind each portion."""
        waiting: deque[tuple[Source | None, Future]] = deque()
        for number in dealt(len(todo), "pictures"):
            for source in todo[number]:
                if source.kind != PICTURE:
                    while waiting:
                        yield waiting.popleft()
                    predict_video(
                        source,
                        self._batches,
                        self._writer,
                        self._kinds,
                        self._progress,
                        self._pool,
                        self._ahead,
                    )
                    continue
                waiting.append((source, self._pool.submit(self._read, source)))
                if len(waiting) > self._ahead:
                    yield waiting.popleft()
            waiting.append((None, Future()))
        while waiting:
            yield waiting.popleft()

    def _read(self, source: Source) -> _Read:
        read_as = stamp(source)
        loaded = load(self._batches.pipeline.loader, source.path)
        picture = "overlay" in self._kinds.pictures
        return _Read(source, read_as, *self._batches.prepared(loaded, f"image {source.path}", picture))

    def _predict(self, group: list[_Read]) -> None:
        wanted = [one for one in group if one.source.name in self._wanted]
        if not wanted:
            return
        try:
            outputs = self._batches.labels([one.sample for one in group])
        except NotTakenError as error:
            for one in wanted:
                self._progress.failed(one.source, UserError(f"image {one.source.path}: {error}"))
            return
        for one, (labels, scores) in zip(group, outputs, strict=True):
            if one.source.name in self._wanted:
                how = dict(source=one.source.path, picture=one.picture, probabilities=scores)
                write = self._pool.submit(self._writer, one.source.name, labels, self._kinds.pictures, **how)
                self._writes.append((one, write))
        self._collect(self._ahead)

    def _collect(self, kept: int) -> None:
        """Take note of what is written, and wait until no more than ``kept`` pictures are to be."""
        while self._writes and (len(self._writes) > kept or self._writes[0][1].done()):
            one, write = self._writes.popleft()
            try:
                files = write.result()
            except UserError as error:
                self._progress.failed(one.source, error)
            else:
                self._progress.done(one.source, one.read_as, files)
