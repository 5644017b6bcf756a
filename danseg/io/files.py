"""Write a file whole or not at all, append to one likewise, and make folders."""

import contextlib
import itertools
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from danseg.errors import StopsAllError, UserError, not_written


@contextlib.contextmanager
def whole_file(target: str | os.PathLike, *, durable: bool = False, suffix: str = "") -> Iterator[Path]:
    """Give a temporary path to write to, which is renamed to ``target`` if the block ends without an error.

    The path lies beside ``target``, ends in ``.part`` and is unique to this call, so that threads, processes
    and machines that share a disk can write at the same time. An existing ``target`` is replaced, or kept if
    there was an error.

    Args:
        target: the file's final name.
        durable: also wait until the file and its name are on the disk, so that they survive a power cut.
        suffix: what follows ".part" in the path, for a library that takes the format from a name's end.

    Raises:
        UserError: the file cannot be written, or ``target`` exists and is not a file.
    """
    target = Path(target)
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part{suffix}")
    try:
        if target.exists() and not target.is_file():
            raise UserError(f"{target} is not a file, so none is written there; move it away")
        yield part
        if durable:
            _sync(part)
        os.replace(part, target)
        if durable:
            _sync(target.parent)
    except OSError as error:
        raise not_written(error, f"cannot write {target}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def process_of(part: Path) -> int | None:
    """The number of the process for which :func:`whole_file` made a temporary file; None for other files."""
    found = re.fullmatch(r"\..+\.(\d+)-[0-9a-f]{8}\.part(\.\w+)?", part.name)
    return int(found[1]) if found else None


@contextlib.contextmanager
def files_together(target: str | os.PathLike) -> Iterator[Path]:
    """Like :func:`whole_file`, for a file to which others belong: give a path of its name in a new folder.

    The folder lies beside ``target``. What is written into it takes its place beside ``target`` if the block
    ends without an error: the others first, ``target`` last. A ``target`` that is replaced goes before the
    others do, so that nobody reads an old one with new files beside it. If one cannot take its place, those
    that have taken theirs go again, but for what is replaced by then.

    Raises:
        UserError: a file cannot be written, or ``target`` exists and is not a file.
    """
    target = Path(target)
    try:
        if target.exists() and not target.is_file():
            raise UserError(f"{target} is not a file, so none is written there; move it away")
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            yield folder / target.name
            others = sorted(set(folder.iterdir()) - {folder / target.name})
            if others:
                target.unlink(missing_ok=True)
            with contextlib.ExitStack() as taking_back:
                for path in (*others, folder / target.name):
                    place = target.with_name(path.name)
                    if not place.exists():
                        taking_back.callback(place.unlink, missing_ok=True)
                    os.replace(path, place)
                taking_back.pop_all()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise not_written(error, f"cannot write {target}") from error


def append_whole(path: str | os.PathLike, data: bytes) -> None:
    """Append to a file, which is made if it does not exist: all of ``data``, or nothing.

    A reader never meets half a line, also if the disk is full for a time.

    Raises:
        OSError: ``data`` cannot be written; the file is as it was.
    """
    made = not os.path.lexists(path)
    with open(path, "ab", buffering=0) as file:
        end = file.tell()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
                if made:
                    os.unlink(path)
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: str | os.PathLike, what: str = "the folder", fix: str = "name another place") -> Path:
    """Make a folder and its parents, and check that files can be written to it.

    Args:
        path: the folder; it may exist already.
        what: what to call the folder in the error, such as "the work dir".
        fix: what the error tells the user to do, such as "choose --work-dir".

    Raises:
        UserError: a file has this name, no folder can have it, or the folder cannot be made or written to.
    """
    if os.fspath(path) == "":  # which a shell makes of a variable that is not set, and Path takes for "."
        raise UserError(f"{what} has no name, it is ''; {fix}")
    path = Path(path)
    try:
        if b"\0" in str(path).encode("utf-8"):
            raise UserError(f"cannot make {what} {str(path)!r}: its name has a zero byte; {fix}")
    except UnicodeEncodeError as error:
        said = f"cannot make {what} {str(path)!r}: its name is not UTF-8, as files that name it are; {fix}"
        raise UserError(said) from error
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(error, f"cannot make {what} {path}", fix) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StopsAllError(f"cannot write to {what} {path}; {fix}")
    return path


def numbered(name: str) -> Iterator[str]:
    """``name``, ``name_2``, ``name_3`` and so on, to take the first that is free."""
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(2))
