"""Find files and read them: linked folders are followed, and what is no file is named and never opened.

A reader of a FIFO would wait for ever, and a file, link or folder that is left out without a word changes
a score. :func:`fault` alone decides what a usable file is.
"""

import errno
import os
import stat
from collections import deque
from pathlib import Path
from typing import BinaryIO

from danseg.errors import UserError, reason_of

_KINDS = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a FIFO",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}


def fault(path: str | os.PathLike) -> str | None:
    """Why a path is no file to read, in a few words; None if it is one. Nothing is opened."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        link = f"it is a link to {Path(path).readlink()}, which" if os.path.islink(path) else "it"
        return f"{link} does not exist"
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        return reason_of(error)
    if not stat.S_ISREG(mode):
        return _KINDS.get(stat.S_IFMT(mode), "it is no regular file")
    return None if os.access(path, os.R_OK) else os.strerror(errno.EACCES)


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Open a file for reading bytes.

    Raises:
        OSError: it has a :func:`fault`, which is the error's ``strerror``, or cannot be opened.
    """
    why = fault(path)
    if why is not None:
        number = errno.EINVAL if os.path.exists(path) else errno.ENOENT  # the latter: FileNotFoundError
        raise OSError(number, why, os.fspath(path))
    return open(path, "rb")


def read_file(path: str | os.PathLike) -> bytes:
    """The content of a file; raises as :func:`open_file` does."""
    with open_file(path) as file:
        return file.read()


def read_lines(path: str | os.PathLike, what: str) -> list[str]:
    """The lines of a text in UTF-8, without their ends and a mark of UTF-8 before the first.

    Args:
        path: the file.
        what: what messages call it, with its path.

    Raises:
        UserError: it cannot be read, or is no text in UTF-8.
    """
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 (byte {error.start}); save it so") from error
    except OSError as error:
        raise UserError(f"{what} cannot be read: {reason_of(error)}") from error
    # Not by splitlines: a file's name may hold what Unicode counts as the end of a line.
    return [line.removesuffix("\r") for line in text.split("\n")]


def files_below(folder: str | os.PathLike, suffix: str = "") -> list[Path]:
    """Whatever has a name that ends in ``suffix``, in a folder and its subfolders, in order of path.

    Linked folders are followed, each folder is searched once, and a link to a folder that holds ``folder``
    is left alone. Names that begin with a dot are left out, such as the parts of interrupted writes. What is
    found need not be a file: :func:`fault` tells.

    Raises:
        UserError: a folder cannot be read, or a link that may be meant for one leads nowhere.
    """
    root = os.path.realpath(folder)
    found: list[Path] = []
    seen: set[str] = set()
    pending = deque([os.fspath(folder)])
    while pending:
        directory = pending.popleft()
        real = os.path.realpath(directory)
        if real in seen or (real != root and root.startswith(os.path.join(real, ""))):
            continue
        seen.add(real)
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.name.endswith(suffix):
                        found.append(Path(entry.path))
                    elif entry.is_symlink() and "." not in entry.name and not os.path.exists(entry.path):
                        raise UserError(f"{entry.path}: {fault(entry.path)}; mend the link or remove it")
                    # Real folders come before links to them, and give the names.
                    if entry.is_symlink():
                        pending += [entry.path] if os.path.isdir(entry.path) else []
                    elif entry.is_dir():
                        pending.appendleft(entry.path)
        except OSError as error:
            raise UserError(
                f"the folder {directory} cannot be read: {reason_of(error)}; make it readable "
                "(chmod -R u+rX), or move it away if it does not belong here"
            ) from error
    return sorted(found)
