"""Frames of videos and cameras, and videos that are written, and read again before they count as whole."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from danseg.apis.sources import CAMERA, Source
from danseg.errors import StopsAllError, UserError
from danseg.io.source_files import fault

# What a video is written as: MPEG-4 in MP4, which every build of OpenCV writes and every player shows.
CODEC, SUFFIX = "mp4v", ".mp4"
# Of a camera, or a video, that does not tell its own.
_FRAME_RATE = 25.0
# A container may count the frames from the duration: so many, and this share of all, may be missing.
_MISSING, _MISSING_SHARE = 2, 0.02


class Capture:
    """Frames of a video or a camera, read by OpenCV.

    Attributes:
        rate: frames per second.
        count: how many frames the container promises; 0 if it does not tell.

    Raises:
        UserError: it cannot be opened.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        # What they would say of a damaged file, line by line; the messages below say it once.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        is_number = source.kind == CAMERA and source.path.isdecimal()
        why = None if source.kind == CAMERA else fault(source.path)
        if not why:
            self._capture = cv2.VideoCapture(int(source.path) if is_number else source.path)
        if why or not self._capture.isOpened():
            if source.kind == CAMERA:
                raise UserError(
                    f"camera {source.path} cannot be opened: it is not there, in use, or not yours to read; "
                    "a camera is named by its number (0), its device (/dev/video0) or its address (rtsp://...)"
                )
            raise UserError(
                f"video {source.path} cannot be read: {why or 'it is none that OpenCV decodes, or damaged'}"
            )
        rate, count = (self._capture.get(one) for one in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.rate = rate if math.isfinite(rate) and rate > 0 else _FRAME_RATE
        self.count = int(count) if math.isfinite(count) and 0 < count < 1e9 and source.kind != CAMERA else 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8, BGR.

        Raises:
            UserError: it breaks off.
        """
        read, size = 0, None
        while True:
            there, frame = self._capture.read()
            if not there:
                break
            if frame.shape != (size or frame.shape):
                raise UserError(
                    f"{self._source.kind} {self._source.path}: frame {read} has another size than those "
                    "before it; convert it, for example with ffmpeg -vf scale"
                )
            size = frame.shape
            read += 1
            yield frame
        if read < self.count - max(_MISSING, int(_MISSING_SHARE * self.count)) or not read:
            raise UserError(
                f"{self._source.kind} {self._source.path} breaks off after {read} of {self.count or 'its'} "
                "frames; copy or download it again, or cut it there (ffmpeg -t)"
            )

    def close(self) -> None:
        self._capture.release()


class VideoFile:
    """A video that is written.

    Args:
        path: where to.
        rate: frames per second.
        what: the final name, for messages.
    """

    def __init__(self, path: Path, rate: float, what: Path) -> None:
        self._path, self._rate, self._what = path, rate, what
        self._writer: Any = None
        self._written = 0

    def write(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) RGB; the codec needs even sides, so an odd one repeats its last row."""
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        height, width = frame.shape[:2]
        frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*CODEC)
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, frame.shape[1::-1])
            if not self._writer.isOpened():
                raise StopsAllError(
                    f"cannot write {self._what}: OpenCV writes no {CODEC} there; is there room?"
                )
        self._writer.write(frame)
        self._written += 1

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.release()

    def require_whole(self) -> None:
        """Read it again.

        Raises:
            StopsAllError: it does not hold all that was written, of which OpenCV says nothing.
        """
        there, capture = 0, cv2.VideoCapture(str(self._path))
        while capture.grab():
            there += 1
        capture.release()
        if there != self._written:
            raise StopsAllError(
                f"cannot write {self._what}: of {self._written} frames {there} can be read again; the disk "
                "may be full"
            )
