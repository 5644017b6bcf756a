"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from danseg.errors import UserError


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to, beside ``target``; it takes that name only when the block ends without an error.

    Raises:
        UserError: the file cannot be written.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part{target.suffix}")
    try:
        yield part
        os.replace(part, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
