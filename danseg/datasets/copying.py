"""Copy files into a data set's folder. Files already there are kept; if one differs, nothing is copied."""

import dataclasses
import filecmp
import functools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file
from danseg.io.parallel import parallel_map
from danseg.io.words import listed


@dataclasses.dataclass(frozen=True)
class Copy:
    """One file to copy to ``target``."""

    source: str  # path, or archive and member; shown in messages, and what a link points to
    size: int  # bytes
    open: Callable[[], BinaryIO]
    target: Path
    status: os.stat_result | None = None  # set for a file on disk: the copy keeps its times


def require_source(source: Path) -> None:
    """Raise an error unless ``source`` exists."""
    if not source.exists():
        raise UserError(f"there is no {source.absolute()}: name the place the data set was downloaded to")


def require_subfolders(base: Path, folders: Sequence[str], what: str) -> None:
    """Raise an error unless ``base`` has these folders; ``what`` says in the message what it should be."""
    missing = [folder for folder in folders if not (base / folder).is_dir()]
    if missing:
        raise UserError(f"{base.absolute()} is not {what}: it lacks the folders {', '.join(missing)}")


def copies_of(source: Path, target: Path) -> list[Copy]:
    """Every file of one folder except hidden ones (.DS_Store)."""
    copies = []
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            status = path.stat()
            opener = functools.partial(_open, path)
            copies.append(Copy(str(path.absolute()), status.st_size, opener, target / path.name, status))
    return copies


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def install(copies: Sequence[Copy], source: Path, progress: bool, link: bool = False) -> None:
    """Copy the missing files; write nothing if the folders hold files that differ or do not belong there."""
    targets = {copy.target for copy in copies}
    folders = sorted({copy.target.parent for copy in copies})
    strangers = [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path not in targets and not path.name.startswith(".")
    ]
    present = [copy for copy in copies if os.path.lexists(copy.target)]
    same = parallel_map(_is_same, present, description="Comparing what is there", progress=progress)
    strangers += [copy.target for copy, equal in zip(present, same, strict=True) if not equal]
    if strangers:
        raise UserError(
            f"nothing was written, because files are in the way that differ from {source} or are not in it: "
            f"{listed(strangers)}. Move them away, or name another folder"
        )
    already = {copy.target for copy in present}
    todo = [copy for copy in copies if copy.target not in already]
    for folder in {copy.target.parent for copy in todo}:
        make_folder(folder)
    verb = "Linking" if link else "Copying"
    work = _link if link else _write
    parallel_map(work, todo, description=f"{verb} to {os.path.commonpath(folders)}", progress=progress)


def _is_same(copy: Copy) -> bool:
    if not copy.target.is_file() or copy.target.stat().st_size != copy.size:
        return False
    if copy.status is not None:
        return os.path.samestat(copy.status, copy.target.stat()) or filecmp.cmp(
            copy.source, copy.target, shallow=False
        )
    with copy.open() as stream:
        return stream.read() == copy.target.read_bytes()


def _write(copy: Copy) -> None:
    with whole_file(copy.target) as part, copy.open() as source:
        with part.open("wb") as target:
            shutil.copyfileobj(source, target)
        if copy.status is not None:
            os.utime(part, ns=(copy.status.st_atime_ns, copy.status.st_mtime_ns))


def _link(copy: Copy) -> None:
    try:
        copy.target.symlink_to(copy.source)
    except OSError as error:
        raise UserError(
            f"cannot link {copy.target}: {error.strerror}; copy instead, without --link"
        ) from error
