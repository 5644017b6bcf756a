"""Read what an exported file says of itself, without the runtime that runs it."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from danseg.engine.checkpoints.checkpoint_bytes import check_archive
from danseg.errors import UserError, reason_of
from danseg.export.description import FILE, KEY, Description
from danseg.io.source_files import fault, open_file, read_file
from danseg.io.xml_file import parsed_xml
from danseg.model_files import EXPORTED

#: How a network is exported, for messages.
EXPORT = "python tools/export.py CONFIG CHECKPOINT"


def read_description(path: str | os.PathLike) -> Description:
    """Read what an exported file says of itself.

    Args:
        path: an ``.onnx``, OpenVINO's ``.xml``, or a ``.pt2`` or ``.pt`` of PyTorch, whose checksums are
            compared.

    Raises:
        UserError: the file is missing, damaged, or danseg did not export it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in EXPORTED:
        raise UserError(f"{path} is no exported network; those end in {', '.join(EXPORTED)}")
    if (why := fault(path)) is not None:
        raise UserError(f"the exported network {path} cannot be read: {why}")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty (0 bytes); writing it was interrupted: export it again")
    try:
        text = _READERS[suffix](path)
    except OSError as error:
        raise UserError(f"the exported network {path} cannot be read: {reason_of(error)}") from error
    except ValueError as error:
        raise UserError(
            f"{path} is damaged, or no {suffix} at all ({error}); copy it again, or export it again: {EXPORT}"
        ) from error
    if text is None:
        raise UserError(
            f"{path} says nothing of its classes, sizes and config: danseg did not export it, or its end is "
            f"missing; export the network with {EXPORT}, or copy the file again"
        )
    return Description.from_json(text, path)


def _of_openvino(path: Path) -> str | None:
    entry = parsed_xml(path, read_file(path)).find(f"rt_info/{KEY}")
    return None if entry is None else entry.get("value")


def _of_pytorch(path: Path) -> str | None:
    check_archive(path, f"the exported network {path}")
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith(f"/{FILE}")]
        return archive.read(found[0]).decode() if found else None


def _of_onnx(path: Path) -> str | None:
    """The entry of ``metadata_props`` in an ONNX file, a message of protocol buffers.

    Of such a message every field tells its length, so that weights of gigabytes are stepped over unread.
    """
    with open_file(path) as file:
        size = path.stat().st_size
        for number, length in _fields(file, size):
            if number != _METADATA:
                continue
            end = file.tell() + length
            entry = {one: file.read(count).decode() for one, count in _fields(file, end)}
            if entry.get(_NAME) == KEY:
                return entry.get(_VALUE, "")
    return None


# Numbers of fields in onnx.proto: ModelProto.metadata_props, and StringStringEntryProto's two.
_METADATA, _NAME, _VALUE = 14, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # kinds of fields


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and length of each field of bytes up to ``end``; the file then stands at its first byte."""
    while file.tell() < end:
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file)
            continue
        if kind not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError("it is none of protocol buffers")
        length = _varint(file) if kind == _BYTES else 8 if kind == _FIXED64 else 4
        after = file.tell() + length
        if after > end:
            raise ValueError("its end is missing")
        if kind == _BYTES:
            yield number, length
        file.seek(after)


def _varint(file: BinaryIO) -> int:
    """A whole number, seven bits a byte, the lowest first."""
    value = 0
    for place in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("its end is missing")
        value |= (byte[0] & 127) << place
        if byte[0] < 128:
            return value
    raise ValueError("it is none of protocol buffers")


_READERS = {".onnx": _of_onnx, ".xml": _of_openvino, ".pt2": _of_pytorch, ".pt": _of_pytorch}
