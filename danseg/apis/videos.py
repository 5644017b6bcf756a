"""Predict the frames of videos and cameras, and write what they show as a video of the same frame rate."""

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from danseg.apis.batches import Batches, NotTakenError
from danseg.apis.finished import stamp
from danseg.apis.outputs import Kinds, Writer
from danseg.apis.pictures import load
from danseg.apis.sources import CAMERA, Source
from danseg.apis.tally import Progress
from danseg.apis.video_files import SUFFIX, Capture, VideoFile
from danseg.engine.stalled import note_progress
from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file
from danseg.visualization import overlay


def predict_video(
    source: Source,
    batches: Batches,
    writer: Writer,
    kinds: Kinds,
    progress: Progress,
    pool: ThreadPoolExecutor,
    ahead: int,
) -> None:
    """Predict a video, or a camera until it ends or the user interrupts (Ctrl-C), frame by frame in batches.

    Labels and probabilities are files, one a frame, in a folder of the video's name; the overlay is a video.

    Args:
        source: the video or camera.
        batches, writer, kinds, progress: as for :class:`danseg.apis.many.BatchJob`.
        pool: threads.
        ahead: how many frames they may have in work.

    Raises:
        UserError: there is no room to write, or too little memory.
    """
    read_as = stamp(source)
    files: dict[str, list[Path]] = {kind: [] for kind in kinds.videos}
    try:
        capture = Capture(source)
        try:
            _Frames(source, capture, batches, writer, kinds.videos, progress, pool, ahead).carry_out(files)
        finally:
            capture.close()
        progress.done(source, read_as, files)
    except BaseException as error:
        for path in (one for paths in files.values() for one in paths):  # a part of the frames is no result
            with contextlib.suppress(OSError):
                path.unlink()
        if not isinstance(error, UserError):
            raise
        progress.failed(source, error)


class _Frames:
    """The frames of one video on their way; arguments as for :func:`predict_video`."""

    def __init__(
        self,
        source: Source,
        capture: Capture,
        batches: Batches,
        writer: Writer,
        kinds: tuple[str, ...],
        progress: Progress,
        pool: ThreadPoolExecutor,
        ahead: int,
    ) -> None:
        self._source, self._capture, self._batches, self._writer = source, capture, batches, writer
        self._frame_kinds = tuple(kind for kind in kinds if kind != "overlay")
        self._overlay = "overlay" in kinds
        self._progress, self._pool, self._ahead = progress, pool, ahead
        self._drawn: deque[Future] = deque()
        self._what = f"{source.kind} {source.path}"

    def carry_out(self, files: dict[str, list[Path]]) -> None:
        """Add what is written, by kind, to ``files``."""
        bar = self._progress.bar
        task = bar.add_task(f"frames of {self._source.name}", total=self._capture.count or None)
        try:
            with self._video(files) as write:
                number = 0
                for batch in self._full_batches():
                    outputs = self._labels([sample for _, sample in batch])
                    for (picture, _), (labels, scores) in zip(batch, outputs, strict=True):
                        name = f"{self._source.name}/{number:06}"
                        self._drawn.append(self._pool.submit(self._draw, name, picture, labels, scores))
                        number += 1
                    note_progress(f"at frame {number} of {self._source.path}")
                    bar.advance(task, self._collect(files, write, self._ahead))
                bar.advance(task, self._collect(files, write, 0))
        finally:
            for one in self._drawn:  # those that are being drawn write files, too
                if not one.cancel() and one.exception() is None:
                    self._take(files, one.result()[1])
            bar.remove_task(task)

    def _labels(self, samples: list[dict]) -> list[tuple[np.ndarray, Any]]:
        try:
            return self._batches.labels(samples)
        except NotTakenError as error:
            raise UserError(f"{self._what}: {error}") from None

    @contextlib.contextmanager
    def _video(self, files: dict[str, list[Path]]) -> Iterator[Callable[[np.ndarray], None] | None]:
        """A function that appends a frame to the overlay, which gets its name at the end."""
        if not self._overlay:
            yield None
            return
        target = self._writer.out / f"{self._source.name}_overlay{SUFFIX}"
        make_folder(target.parent)
        with whole_file(target, suffix=SUFFIX) as part:
            video = VideoFile(part, self._capture.rate, target)
            try:
                yield video.write
            finally:
                video.close()
            video.require_whole()
        files["overlay"].append(target)

    def _full_batches(self) -> Iterator[list[tuple[Any, dict]]]:
        """Pictures to draw on and samples, as many as go through the network together."""
        waiting: deque[Future] = deque()
        batch: list[tuple[Any, dict]] = []
        with _interruptible(self._source) as interrupted:
            frames = iter(self._capture)
            while True:
                frame = None if interrupted() else next(frames, None)
                if frame is not None:
                    waiting.append(self._pool.submit(self._prepare, frame))
                while waiting and (frame is None or len(waiting) > self._ahead):
                    batch.append(waiting.popleft().result())
                    if len(batch) == self._batches.limit(batch[0][1]):
                        yield batch
                        batch = []
                if frame is None:
                    break
            if batch:
                yield batch

    def _prepare(self, frame: np.ndarray) -> tuple[Any, dict]:
        try:
            loaded = load(self._batches.pipeline.loader, frame, channel_order="bgr")
            return self._batches.prepared(loaded, self._what, self._overlay)
        except ValueError as error:
            raise UserError(f"{self._what}: {error}") from None

    def _draw(self, name: str, picture: Any, labels: np.ndarray, scores: Any) -> tuple[Any, dict]:
        written = self._writer(name, labels, self._frame_kinds, probabilities=scores)
        return overlay(picture, labels, self._writer.palette) if self._overlay else None, written

    def _collect(self, files: dict[str, list[Path]], write: Callable | None, kept: int) -> int:
        """Take what is drawn, in order, until no more than ``kept`` frames are not; returns how many."""
        taken = 0
        while len(self._drawn) > kept:
            shown, written = self._drawn.popleft().result()
            self._take(files, written)
            if write is not None:
                write(shown)
            taken += 1
        return taken

    @staticmethod
    def _take(files: dict[str, list[Path]], written: dict[str, list[Path]]) -> None:
        for kind, paths in written.items():
            files[kind] += paths


@contextlib.contextmanager
def _interruptible(source: Source) -> Iterator[Callable[[], bool]]:
    """Tells whether the user has interrupted a camera, which ends it and not the program."""
    if source.kind != CAMERA or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
