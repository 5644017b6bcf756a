"""Files that appear whole or not at all, and the folders that they lie in."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from danseg.errors import UserError


@contextlib.contextmanager
def whole_file(target: str | os.PathLike, *, durable: bool = False) -> Iterator[Path]:
    """A path to write to, beside ``target``; it takes that name only when the block ends without an error.

    The path ends in ``.part`` and belongs to this call alone, so that neither threads nor processes nor
    machines that share a disk meet. What had the target's name is replaced; after an error it stays.

    Args:
        target: the file's final name.
        durable: also wait until the file and its name are on the disk and survive a power cut.

    Raises:
        UserError: the file cannot be written, or the name belongs to something that is not a file.
    """
    target = Path(target)
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
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
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: str | os.PathLike, what: str = "the folder", fix: str = "name another place") -> Path:
    """Make a folder that can be written to, parents included, or say why not.

    Args:
        path: the folder; one that exists is left as it is.
        what: what to call it in the message, such as "the work dir".
        fix: what the user can do, such as "choose --work-dir".

    Raises:
        UserError: something is in the way, or the folder cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {what} {path}: {error.strerror or error}; {fix}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {what} {path}; {fix}")
    return path
