"""Check that a checkpoint's file is whole and of a known format, before anything is read from it."""

import zipfile
from pathlib import Path

from danseg.errors import UserError
from danseg.io.source_files import fault
from danseg.io.words import listed
from danseg.model_files import CHECKPOINTS

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # what torch writes, and what it wrote before version 1.6
_LONGEST_HEADER = 100_000_000  # bytes, as the library of safetensors allows


def is_safetensors(start: bytes) -> bool:
    """Whether a file that starts with these nine bytes or more is one of safetensors: a length, then JSON."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def check_bytes(path: Path, called: object = None) -> bytes:
    """Check that ``path`` is a whole file of a format that is read: torch's two, or safetensors.

    The checksums of torch's archives are verified. Its old format has none, nor has safetensors, whose reader
    compares the lengths.

    Args:
        path: the file.
        called: what to call it in messages, if it is a copy of something else.

    Returns:
        The start of the file, which tells its format.

    Raises:
        UserError: it is not.
        OSError: it cannot be opened.
    """
    called = called or path
    why = fault(path)
    if why is not None:
        inside = f"; name a {' or '.join(CHECKPOINTS)} file in it" if path.is_dir() else ""
        beside = _beside(path if path.is_dir() else path.parent)
        said = why.removeprefix("it ") if why.startswith("it ") else f"cannot be read: {why}"
        raise UserError(f"checkpoint {called} {said}{inside}{beside}")
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise UserError(f"checkpoint {called} is empty (0 bytes); writing it was interrupted")
    if start[:4] == _ZIP:
        check_archive(path, f"checkpoint {called}")
    elif start[:1] != _PICKLE and not is_safetensors(start):
        raise UserError(f"{called} is neither a PyTorch checkpoint nor a file of safetensors")
    return start


# The bit of an entry's attributes that calls it a folder: torch, unlike zipfile, then reads nothing of it.
_FOLDER = 0x10


def check_archive(path: Path, called: str) -> None:
    """Compare every entry of a zip archive to its checksum, which ``torch.load`` does not do.

    An archive that was written with ``torch.serialization.set_crc32_options(False)`` has none: all are 0.

    Args:
        path: the file.
        called: what messages call it.

    Raises:
        UserError: the archive is cut off or damaged.
    """
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{called} is cut off or damaged at its end ({path.stat().st_size} bytes); writing or "
            f"copying it was interrupted{_beside(path.parent, without=path)}"
        )
    place = "its list of entries"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            summed = any(entry.CRC for entry in entries)
            for entry in entries if summed else ():
                place = f"its entry {entry.filename}"
                if entry.external_attr & _FOLDER:
                    raise zipfile.BadZipFile("marked as a folder")
                length = 0
                with archive.open(entry) as file:
                    while part := file.read(1 << 20):
                        length += len(part)
                if length != entry.file_size:
                    raise zipfile.BadZipFile(f"{length} bytes instead of {entry.file_size}")
    except Exception as error:  # damaged bytes make zipfile and its decoders raise errors of any kind
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{called} is damaged: {place} is not what was written ({reason}); copy it again"
            f"{_beside(path.parent, without=path)}"
        ) from error


def _beside(folder: Path, without: Path | None = None) -> str:
    """Name the checkpoints in ``folder``, for the end of a message."""
    found = [
        path.name for suffix in CHECKPOINTS for path in sorted(folder.glob(f"*{suffix}")) if path != without
    ]
    return f"; {folder} holds {listed(found)}" if found else ""
