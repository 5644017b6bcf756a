"""The files of a prepared set: written whole, never over a user's own, and all taken back if one fails.

``prepared.json`` beside them records the arguments and what each file held, so that a second run with the
same arguments renews its own files, and leaves alone what somebody changed.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from danseg.errors import UserError, reason_of
from danseg.io.files import make_folder, whole_file
from danseg.io.images import decode_whole, save_image
from danseg.io.source_files import read_file
from danseg.label_maps.id_formats import VOID
from danseg.label_maps.label_png import write_label_map

RECORD = "prepared.json"
IGNORED_COLOUR = (224, 224, 192)  # of pixels that belong to no class, as in Pascal VOC's masks


class WrittenFiles:
    """The files that one run writes into a folder.

    Attributes:
        folder: the folder.
        arguments: of the run.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        """Raises:
        UserError: the folder holds a set that was prepared with other arguments.
        """
        self.folder = folder
        self.arguments = json.loads(json.dumps(arguments))
        self._before = _recorded(folder)
        self._hashes: dict[str, str] = {}
        self._made: list[Path] = []
        earlier = self._before.get("arguments", self.arguments)
        if earlier != self.arguments:
            differ = sorted(
                key for key in {*earlier, *self.arguments} if earlier.get(key) != self.arguments.get(key)
            )
            told = ", ".join(f"{key} {earlier.get(key)!r}, now {self.arguments.get(key)!r}" for key in differ)
            raise UserError(
                f"{folder} holds a set that was prepared with other arguments ({told}); name another --out, "
                "or remove that folder first"
            )

    def add_text(self, name: str, text: str) -> None:
        """Write a file of text, unless it is there with this content.

        Raises:
            UserError: a file of the user's has its name, or it cannot be written.
        """
        path, data = self.folder / name, text.encode()
        if not (os.path.lexists(path) and _hash(path) == _digest(data)):
            self._make_way(path)
            with whole_file(path) as part:
                part.write_bytes(data)
        self._hashes[name] = _digest(data)

    def add_mask(self, name: str, classes: np.ndarray, colours: Sequence[Sequence[int]]) -> None:
        """Write a map of classes as a PNG that shows their colours, unless it is there; raises as above."""
        path = self.folder / name
        palette = [*colours, *[(0, 0, 0)] * (VOID - len(colours)), IGNORED_COLOUR]
        if not (os.path.lexists(path) and _holds(path, classes, palette)):
            self._make_way(path)
            write_label_map(path, classes, palette)
        self._hashes[name] = _hash(path)

    def add_picture(self, name: str, pixels: np.ndarray) -> None:
        """Write colours (H, W, 3) RGB as a PNG, unless it is there; raises as above."""
        path = self.folder / name
        if not (os.path.lexists(path) and _shows(path, pixels)):
            self._make_way(path)
            save_image(pixels, path)
        self._hashes[name] = _hash(path)

    def _make_way(self, path: Path) -> None:
        """Make the folder of a file, and refuse to replace a file that is not this command's."""
        name = path.relative_to(self.folder).as_posix()
        if os.path.lexists(path):
            if _hash(path) != self._before.get("files", {}).get(name):
                raise UserError(
                    f"{path} is there and was not written by this command, or was changed since; move it "
                    "away, or name another --out"
                )
            return
        missing = [one for one in (path.parent, *path.parent.parents) if not one.exists()]
        self._made += [one for one in reversed(missing) if one not in self._made]
        make_folder(path.parent, "the set's folder", "name another --out")
        self._made.append(path)

    def finish(self) -> list[str]:
        """Record the files, and remove those of the run before that are no more part of the set.

        Returns:
            Files of the run before that were left because they had been changed.
        """
        content = dict(arguments=self.arguments, files=dict(sorted(self._hashes.items())))
        with whole_file(self.folder / RECORD) as part:
            part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        kept = []
        for name, digest in self._before.get("files", {}).items():
            if name in self._hashes or not os.path.lexists(self.folder / name):
                continue
            if _hash(self.folder / name) == digest:
                os.unlink(self.folder / name)
            else:
                kept.append(name)
        return kept

    def take_back(self) -> None:
        """Remove what this run has made: files and, if they are empty, folders."""
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@contextlib.contextmanager
def written_files(folder: Path, arguments: Mapping[str, Any]) -> Iterator[WrittenFiles]:
    """Files that stay if the block ends well, and are taken back if not."""
    files = WrittenFiles(folder, arguments)
    try:
        yield files
    except BaseException:
        files.take_back()
        raise


def _recorded(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not os.path.lexists(path):
        return {}
    try:
        content = json.loads(read_file(path))
        if not isinstance(content["arguments"], dict) or not isinstance(content["files"], dict):
            raise ValueError("it lacks arguments and files")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no record of this command ({reason_of(error)}); move it away, or name another --out"
        ) from error
    return content


def _holds(path: Path, classes: np.ndarray, palette: Sequence[Sequence[int]]) -> bool:
    """Whether a file is the PNG that would be written."""
    try:
        image = decode_whole(read_file(path))
    except (OSError, ValueError):
        return False
    flat = [one for colour in palette for one in colour]
    return image.mode == "P" and image.getpalette() == flat and np.array_equal(np.asarray(image), classes)


def _shows(path: Path, pixels: np.ndarray) -> bool:
    """Whether a file is a picture of these colours."""
    try:
        image = decode_whole(read_file(path))
    except (OSError, ValueError):
        return False
    return image.mode == "RGB" and np.array_equal(np.asarray(image), pixels)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hash(path: Path) -> str:
    try:
        return _digest(read_file(path))
    except OSError as error:
        raise UserError(f"{path} is in the way: {reason_of(error)}; name another --out") from error
