"""Training frames unpacked on disk: a crop then reads only its own pixels and decodes nothing.

``ROOT/danseg_cache`` mirrors the data set at ``ROOT``: ``leftImg8bit/train/x.png`` becomes
``danseg_cache/leftImg8bit/train/x.png.npy``, an uncompressed uint8 array. An image has shape (height, width,
3) in RGB order. A label has shape (height, width) and keeps the ids of its file. ``index.json`` lists the
unpacked files::

    {"format": 1,
     "files": {"leftImg8bit/train/x.png":
        {"bytes": 2301456, "mtime_ns": 1700000000000000000, "sha256": "…", "shape": [1024, 2048, 3]}}}

with size, modification time and SHA-256 of the source. A source file counts as unchanged if its size and
time match the index; if only the time differs, the hash decides. A frame that is missing from the cache, has
changed, or is damaged is read from the source, and one warning per process says so. A stale array is never
used.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from danseg.errors import UserError, reason_of
from danseg.io.files import make_folder, whole_file
from danseg.io.image_headers import require_upright
from danseg.io.images import decode_image_rows
from danseg.io.parallel import parallel_map
from danseg.io.source_files import open_file, read_file
from danseg.label_maps.label_png import decode_label_map
from danseg.shipped import as_started

FOLDER, INDEX = "danseg_cache", "index.json"
FORMAT = 1
_NPY_HEADER = 128  # bytes before the values in each of these .npy files
_SAVE_EVERY = 10.0  # seconds between saves of the index: an interruption loses at most this much work
_GIB = 2**30


class FrameCache:
    """Reads the cache of the data set at ``root``.

    Args:
        root: folder that holds ``danseg_cache``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._told = False
        self._unchanged: set[tuple[str, int, int]] = set()
        try:
            self._files = _read_index(root)
        except ValueError as error:
            self._files = {}
            self._say_once(str(error))

    def load(self, path: str) -> np.ndarray | None:
        """The unpacked frame of a source file, mapped read-only from disk; None if there is no usable one."""
        try:
            return self._frame(path)
        except ValueError as error:
            self._say_once(str(error))
            return None

    def _frame(self, path: str) -> np.ndarray:
        """Like :meth:`load`, but raises a ValueError if there is no usable frame."""
        key = _key(path, self.root)
        entry = self._files.get(key)
        if entry is None:
            raise ValueError(f"it lacks {key}")
        if not self._is_unchanged(path, entry):
            raise ValueError(f"{path} has changed since")
        try:
            array = np.load(_array_path(self.root, key), mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ValueError(f"{key}.npy cannot be read ({error})") from error
        if array.dtype != np.uint8 or list(array.shape) != entry["shape"]:
            shape = entry["shape"]
            raise ValueError(f"{key}.npy holds {array.dtype} {array.shape} instead of {shape}")
        return array

    def _is_unchanged(self, path: str, entry: dict) -> bool:
        status = os.stat(path)
        if status.st_size != entry["bytes"]:
            return False
        seen = (path, status.st_size, status.st_mtime_ns)
        if status.st_mtime_ns == entry["mtime_ns"] or seen in self._unchanged:
            return True
        if hashlib.sha256(read_file(path)).hexdigest() != entry["sha256"]:
            return False
        self._unchanged.add(seen)  # a copied or touched file is hashed once, not in every epoch
        return True

    def _say_once(self, why: str) -> None:
        if not self._told:
            self._told = True
            renew = as_started("tools/prepare_dataset.py ... --cache")
            warnings.warn(
                f"the cache in {self.root / FOLDER} is not used for some frames; they are decoded instead: "
                f"{why}. Renew it with {renew}, or delete the folder",
                stacklevel=3,
            )


def find_cache(path: str) -> FrameCache | None:
    """The cache of the data set that ``path`` belongs to: the nearest ``danseg_cache`` in a folder above."""
    root = _root_above(os.path.dirname(path))
    return None if root is None else _cache_of(root)


@functools.cache
def _root_above(folder: str) -> Path | None:
    for root in (Path(folder), *Path(folder).parents):
        if (root / FOLDER / INDEX).is_file():
            return root
    return None


_cache_of = functools.cache(FrameCache)  # one per data set, however many folders it has


def forget_caches() -> None:
    """Forget the caches found so far: the next look-up searches the disk again, as a new process would."""
    _root_above.cache_clear()
    _cache_of.cache_clear()


@dataclasses.dataclass
class CacheReport:
    """What a cache holds after it was written.

    Attributes:
        folder: folder of the cache.
        frames: number of unpacked files, images and labels.
        written: how many of them were written now; the rest were already there and unchanged.
        size: total size in bytes.
    """

    folder: Path
    frames: int
    written: int
    size: int

    def __str__(self) -> str:
        return (
            f"cache: {self.frames} unpacked images and labels, {self.size / _GIB:.2f} GiB in {self.folder} "
            f"({self.written} written now, {self.frames - self.written} up to date)"
        )


def write_cache(
    root: str | os.PathLike, images: Sequence[str], labels: Sequence[str], *, progress: bool = True
) -> CacheReport:
    """Unpack frames to ``root/danseg_cache``; keep those that are unchanged, delete those without a source.

    If the call is interrupted, the cache stays valid as far as it was written, and the next call continues
    from there.

    Args:
        root: folder of the data set.
        images: paths of the image files, below ``root``.
        labels: paths of the label files, below ``root``.
        progress: whether to draw progress bars on stderr.

    Raises:
        UserError: a file is damaged, refused by :mod:`danseg.io.images` or turned by EXIF, a file is not
            below ``root``, or the disk is full or not writable.
    """
    root = Path(root)
    sources = {_key(path, root): (path, is_image) for path, is_image in _told_apart(images, labels)}
    outside = [key for key in sources if key.startswith("..") or os.path.isabs(key)]
    if outside:
        raise UserError(f"{outside[0]} is not below {root.absolute()}, whose frames are to be cached")
    try:
        files = _read_index(root)
    except (OSError, ValueError):
        files = {}  # no index yet, or one in another format: start a new one
    for key in set(files) - set(sources):
        del files[key]
        _array_path(root, key).unlink(missing_ok=True)
    todo = [key for key in sources if not _is_current(root, key, sources[key][0], files.get(key))]
    for key in todo:
        files.pop(key, None)
    shapes = parallel_map(
        lambda key: _shape(*sources[key]), todo, description="Reading sizes", progress=progress
    )
    _require_room(root, sum(_file_size(shape) for shape in shapes), len(todo))
    lock, saved = threading.Lock(), time.monotonic()

    def unpack(key: str) -> None:
        nonlocal saved
        entry = _unpack(*sources[key], _array_path(root, key))
        with lock:
            files[key] = entry
            if time.monotonic() - saved > _SAVE_EVERY:
                _write_index(root, files)
                saved = time.monotonic()

    make_folder(root / FOLDER)
    try:
        parallel_map(unpack, todo, description="Unpacking frames", progress=progress)
    finally:
        _write_index(root, files)
        forget_caches()
    size = sum(_file_size(entry["shape"]) for entry in files.values())
    return CacheReport(root / FOLDER, len(files), len(todo), size)


def _told_apart(images: Sequence[str], labels: Sequence[str]) -> list[tuple[str, bool]]:
    return [(path, True) for path in images] + [(path, False) for path in labels]


def _key(path: str | os.PathLike, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _array_path(root: Path, key: str) -> Path:
    return root / FOLDER / f"{key}.npy"


def _file_size(shape: Sequence[int]) -> int:
    return _NPY_HEADER + int(np.prod(shape))


def _is_current(root: Path, key: str, path: str, entry: dict | None) -> bool:
    if entry is None:
        return False
    status = os.stat(path)
    if (status.st_size, status.st_mtime_ns) != (entry["bytes"], entry["mtime_ns"]):
        return False
    array = _array_path(root, key)
    return array.is_file() and array.stat().st_size == _file_size(entry["shape"])


def _shape(path: str, is_image: bool) -> tuple[int, ...]:
    try:
        with open_file(path) as file, Image.open(file) as header:
            return (header.height, header.width, 3) if is_image else (header.height, header.width)
    except Exception as error:  # Pillow raises almost anything
        raise UserError(f"{path} cannot be read ({error}): copy or download it again") from error


def _require_room(root: Path, needed: int, frames: int) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"a cache of {frames} more images and labels needs {needed / _GIB:.2f} GiB in {root.absolute()}, "
            f"where {free / _GIB:.2f} GiB are free; free some space, or train without a cache"
        )


def _unpack(path: str, is_image: bool, target: Path) -> dict:
    status = os.stat(path)  # before reading, so that a change during reading is noticed later
    try:
        data = read_file(path)
        if is_image:
            require_upright(data)
        array = decode_image_rows(data)[0] if is_image else decode_label_map(data, path)
    except OSError as error:
        raise UserError(f"{path} cannot be unpacked: {reason_of(error)}") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be unpacked: {error}") from error
    make_folder(target.parent)
    with whole_file(target) as part, part.open("wb") as file:
        np.save(file, array)
    return {
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": hashlib.sha256(data).hexdigest(),
        "shape": list(array.shape),
    }


def _read_index(root: Path) -> dict[str, dict]:
    """Read the entries of the index.

    Raises:
        ValueError: the index is damaged, or has another format.
        OSError: there is no index.
    """
    text = (root / FOLDER / INDEX).read_text(encoding="utf-8")
    try:
        index = json.loads(text)
        found, files = index["format"], index["files"]
        complete = all({"bytes", "mtime_ns", "sha256", "shape"} <= set(entry) for entry in files.values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"its {INDEX} is damaged ({error})") from error
    if found != FORMAT or not complete:
        raise ValueError(f"its {INDEX} has format {found!r}, this danseg reads format {FORMAT}")
    return files


def _write_index(root: Path, files: dict[str, dict]) -> None:
    with whole_file(root / FOLDER / INDEX) as part:
        part.write_text(
            json.dumps({"format": FORMAT, "files": dict(sorted(files.items()))}), encoding="utf-8"
        )
