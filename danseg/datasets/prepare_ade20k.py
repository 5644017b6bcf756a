"""Prepare ADE20K's scene parsing benchmark from its archive or from the unpacked folder."""

import contextlib
import functools
import io
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from danseg.datasets.after_preparing import Reports, check_splits, finished
from danseg.datasets.copying import Copy, copies_of, install, require_source, require_subfolders
from danseg.errors import UserError
from danseg.known_datasets import known_dataset

_ADE20K = known_dataset("ade20k")
_NAME = "ADEChallengeData2016"  # name of the archive and of the folder inside it


def ade20k(
    source: str | os.PathLike,
    root: str | os.PathLike = _ADE20K.root,
    *,
    cache: bool = False,
    progress: bool = True,
) -> Reports:
    """Unpack or copy the ADE20K scene parsing benchmark (150 classes) to ``root``, then check it.

    Args:
        source: ``ADEChallengeData2016.zip``, or the folder it unpacks to.
        root: Folder for ``images`` and ``annotations``.
        cache: Whether to unpack the training frames as well (:mod:`danseg.datasets.frame_cache`).
        progress: Whether to draw progress bars on stderr.

    Returns:
        One report each for train and val, and one for the cache if it was written.

    Raises:
        UserError: The source is not the benchmark, or ``root`` holds other files.
    """
    source, root = Path(source), Path(root)
    folders = [folder for pair in _ADE20K.folders.values() for folder in pair]
    require_source(source)
    with contextlib.ExitStack() as stack:
        if source.is_dir():
            base = source / _NAME
            base = base if base.is_dir() else source
            require_subfolders(base, folders, f"the folder that {_NAME}.zip unpacks to")
            check_splits(_ADE20K, base, _ADE20K.folders, progress)
            copies = [copy for folder in folders for copy in copies_of(base / folder, root / folder)]
        else:
            copies = _ade20k_members(_open_zip(source, stack), source, folders, root)
        install(copies, source, progress)
    return finished(_ADE20K, root, _ADE20K.folders, cache, progress)


def _open_zip(source: Path, stack: contextlib.ExitStack) -> zipfile.ZipFile:
    try:
        return stack.enter_context(zipfile.ZipFile(source))
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{source} is no complete zip archive ({error}): download {_NAME}.zip again"
        ) from error


def _ade20k_members(archive: zipfile.ZipFile, source: Path, folders: Sequence[str], root: Path) -> list[Copy]:
    # The pattern also rejects names such as ../../x, with which an archive could write outside of root.
    wanted = re.compile(rf"(?:{_NAME}/)?({'|'.join(folders)})/([^/\\]+\.(?:jpg|png))")
    copies, found = [], set()
    for member in archive.infolist():
        match = wanted.fullmatch(member.filename)
        if match:
            folder, name = match.groups()
            found.add(folder)
            opener = functools.partial(_open_member, archive, member, source)
            copies.append(Copy(f"{source}:{member.filename}", member.file_size, opener, root / folder / name))
    missing = [folder for folder in folders if folder not in found]
    if missing:
        places = ", ".join(f"{_NAME}/{folder}" for folder in missing)
        raise UserError(f"{source} is not {_NAME}.zip: no files were found in {places}")
    return copies


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: Path) -> BinaryIO:
    try:
        return io.BytesIO(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{member.filename} in {source} cannot be unpacked ({error}): download the archive again"
        ) from error
