"""Find what is to be predicted: pictures, videos and cameras, from names, folders, patterns and lists.

Each has a name, below which its outputs stand in the output folder. Pictures of a folder keep their path
below it, those of a pattern their path below its fixed part, and those of a list their path below the folder
that all of the list share, so that pictures of one name in several folders stay apart.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from danseg.errors import UserError
from danseg.io.images import IMAGE_SUFFIXES
from danseg.io.source_files import fault, files_below, read_lines

PICTURE, VIDEO, CAMERA = "picture", "video", "camera"
_PICTURES = frozenset((*IMAGE_SUFFIXES, ".npy"))
_VIDEOS = frozenset(".avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .ts .webm .wmv".split())
_LIST = ".txt"
_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Source:
    """What is predicted, and what its outputs are called.

    Attributes:
        path: a file, or the number, device or address of a camera.
        name: path of the outputs below their folder, without the end that says what they are.
        kind: PICTURE, VIDEO or CAMERA.
    """

    path: str
    name: str
    kind: str = PICTURE


@dataclass
class Found:
    """What :func:`find_sources` has found.

    Attributes:
        sources: each once.
        left_out: files of folders and patterns that are neither pictures nor videos, counted by suffix.
    """

    sources: list[Source] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def find_sources(given: Sequence[str], out: str | os.PathLike, tiles: bool = False) -> Found:
    """Find what the arguments of a command line name.

    Args:
        given: each of them a file, a folder (searched with its subfolders), a pattern (``'*.png'``, ``**``
            for any subfolders), a list of files (``@NAME``, or a name that ends in .txt), or a camera: its
            number, its device (/dev/video0) or an address of a stream. A file that is named, also in a list,
            need not exist: it is found missing when its turn comes.
        out: the output folder. What lies in it is nothing to predict, if it lies in a folder that is named.
        tiles: whether pictures are read as rasters, which mosaics (.vrt) are too.

    Raises:
        UserError: a folder or list cannot be read, a folder, pattern or list holds nothing to predict, two
            files would have the same outputs, or outputs would lie among the pictures.
    """
    found = Found()
    by_name: dict[str, Source] = {}
    for argument in given:
        for source in _sources(
            argument, Path(out), found.left_out, _PICTURES | ({".vrt"} if tiles else set())
        ):
            first = by_name.setdefault(source.name, source)
            if first is not source and os.path.realpath(first.path) != os.path.realpath(source.path):
                raise UserError(
                    f"{first.path} and {source.path} would have the same outputs, "
                    f"{Path(out, source.name)}_*; {_apart(Path(first.path), Path(source.path))}"
                )
    found.sources = list(by_name.values())
    return found


def _sources(argument: str, out: Path, left_out: Counter, pictures: frozenset[str]) -> Iterator[Source]:
    if argument.startswith("@"):
        yield from _listed(Path(argument[1:]))
    elif os.path.isdir(argument):
        yield from _below(argument, Path(argument), files_below(argument), out, left_out, pictures)
    elif "://" not in argument and _MAGIC.search(argument) and not os.path.lexists(argument):
        fixed, parts = Path(), Path(argument).parts
        for part in parts[:-1]:
            if _MAGIC.search(part):
                break
            fixed /= part
        files = [Path(one) for one in sorted(glob.glob(argument, recursive=True)) if not os.path.isdir(one)]
        if not files:
            raise UserError(f"no file matches the pattern {argument!r}; ** matches any subfolders")
        yield from _below(argument, fixed, files, out, left_out, pictures)
    elif _camera_name(argument):
        yield Source(argument, _camera_name(argument), CAMERA)
    elif argument.lower().endswith(_LIST):
        yield from _listed(Path(argument))
    else:
        yield Source(argument, Path(argument).stem, _kind(argument))


def _apart(one: Path, other: Path) -> str:
    """How to keep the outputs of two files of one name apart."""
    if one.parent == other.parent:
        return f"rename one of them, or name those of one suffix by a pattern ('{one.parent}/*{one.suffix}')"
    return "name the folder above both, below which each keeps its path, or give each an --out of its own"


def _kind(path: str | os.PathLike) -> str:
    return VIDEO if Path(path).suffix.lower() in _VIDEOS else PICTURE


def _camera_name(argument: str) -> str:
    """What to call a camera; empty for what is none."""
    if argument.isdecimal() and not os.path.lexists(argument):
        return f"camera_{argument}"
    if fault(argument) == "it is a device":
        return Path(argument).name
    address = urlsplit(argument) if "://" in argument else None
    if address is None or Path(address.path).suffix.lower() in _PICTURES:
        return ""
    return re.sub(r"[^\w.-]+", "_", f"{address.hostname or address.scheme}{address.path}").strip("_")


def _below(
    argument: str,
    base: Path,
    files: Iterable[Path],
    out: Path,
    left_out: Counter,
    pictures: frozenset[str],
) -> Iterator[Source]:
    """Pictures and videos among the files of a folder or a pattern, named by their path below ``base``."""
    real_base, real_out = os.path.realpath(base), os.path.realpath(out)
    if real_base == real_out:
        raise UserError(
            f"--out {out} is the folder of the pictures {argument}, where outputs would be taken for "
            f"pictures the next time; name another one, such as {out / 'predicted'}"
        )
    inside = real_out.startswith(os.path.join(real_base, ""))
    empty = True
    for path in files:
        if inside and os.path.realpath(path).startswith(os.path.join(real_out, "")):
            continue
        suffix = path.suffix.lower()
        if suffix not in pictures | _VIDEOS:
            if not os.path.isdir(path):
                left_out[suffix or "none"] += 1
            continue
        if os.path.isdir(path):  # a folder with a picture's name; what is in it is listed too
            continue
        empty = False
        yield Source(str(path), path.relative_to(base).with_suffix("").as_posix(), _kind(path))
    if empty:
        raise UserError(
            f"{argument} holds no picture and no video, which are known by their suffixes "
            f"({', '.join(sorted(pictures | _VIDEOS))}); a file of another name can be named itself"
        )


def _listed(path: Path) -> Iterator[Source]:
    """The files that a list names, a line each, relative to the list's folder unless they are absolute."""
    lines = read_lines(path, f"the list {path}")
    files = [os.path.normpath(path.parent / line.strip()) for line in lines if line.strip()]
    if not files:
        raise UserError(f"the list {path} names no file; write one into each line")
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(one)) for one in files])
    for one in files:
        name = Path(os.path.abspath(one)).relative_to(shared).with_suffix("").as_posix()
        yield Source(one, name, _kind(one))
