"""Prepare Pascal VOC 2012: copy or link what its segmentation lists name."""

import os
from pathlib import Path

from danseg.datasets.after_preparing import Reports, check_splits, finished
from danseg.datasets.copying import copies_of, install, require_source, require_subfolders
from danseg.errors import UserError
from danseg.io.source_files import read_file
from danseg.known_datasets import known_dataset

_VOC = known_dataset("voc2012")
_PLACES = (Path(), Path("VOC2012"), Path("VOCdevkit/VOC2012"))


def voc2012(
    source: str | os.PathLike,
    root: str | os.PathLike = _VOC.root,
    *,
    link: bool = False,
    cache: bool = False,
    progress: bool = True,
) -> Reports:
    """Copy Pascal VOC 2012's segmentation to ``root`` and check it; the source is checked first.

    Args:
        source: the folder that ``VOCtrainval_11-May-2012.tar`` unpacks to, or ``VOC2012`` in it.
        root: Folder for ``JPEGImages``, ``SegmentationClass`` and ``ImageSets``.
        link: Whether to make symbolic links instead of copies. The source's files must then stay in place.
        cache: Whether to unpack the training frames as well (:mod:`danseg.datasets.frame_cache`).
        progress: Whether to draw progress bars on stderr.

    Returns:
        One report each for train and val, and one for the cache if it was written.

    Raises:
        UserError: The source is not VOC 2012, or ``root`` holds other files.
    """
    source, root = Path(source), Path(root)
    require_source(source)
    if source.is_file():
        raise UserError(f"{source} is no folder: unpack it (tar -xf {source}) and name the folder VOCdevkit")
    folders = [*_VOC.folders["train"], os.path.dirname(_VOC.lists["train"])]
    found = [source / place for place in _PLACES if (source / place / folders[-1]).is_dir()]
    source = found[0] if found else source
    require_subfolders(source, folders, "Pascal VOC 2012, VOCdevkit/VOC2012 in its published layout")
    check_splits(_VOC, source, _VOC.folders, progress)
    frames = {
        frame for file in _VOC.lists.values() for frame in read_file(source / file).decode("utf-8").split()
    }
    copies = [
        copy
        for folder in folders
        for copy in copies_of(source / folder, root / folder)
        if copy.target.stem in frames or folder == folders[-1]
    ]
    install(copies, source, progress, link=link)
    return finished(_VOC, root, _VOC.folders, cache, progress)
