"""Prepare CamVid: copy or link it from a folder in the published layout."""

import os
from pathlib import Path

from danseg.datasets.after_preparing import Reports, check_splits, finished
from danseg.datasets.copying import copies_of, install, require_source, require_subfolders
from danseg.known_datasets import known_dataset

_CAMVID = known_dataset("camvid")


def camvid(
    source: str | os.PathLike,
    root: str | os.PathLike = _CAMVID.root,
    *,
    link: bool = False,
    cache: bool = False,
    progress: bool = True,
) -> Reports:
    """Copy CamVid to ``root`` and check it; the source is checked before the first file is copied.

    Args:
        source: Folder in the published layout: ``train/ trainannot/ val/ valannot/`` and optionally
            ``test/ testannot/``; or a folder with a subfolder ``CamVid`` of that layout. Images may be PNG
            or JPEG.
        root: Folder for the copies.
        link: Whether to make symbolic links instead of copies. The source's files must then stay in place.
        cache: Whether to unpack the training frames as well (:mod:`danseg.datasets.frame_cache`).
        progress: Whether to draw progress bars on stderr.

    Returns:
        One report per split, and one for the cache if it was written.

    Raises:
        UserError: The source is not CamVid, or ``root`` holds other files.
    """
    source, root = Path(source), Path(root)
    require_source(source)
    if (source / "CamVid").is_dir() and not (source / "train").is_dir():
        source = source / "CamVid"
    splits = [
        split
        for split, folders in _CAMVID.folders.items()
        if split != "test" or any((source / folder).is_dir() for folder in folders)
    ]
    require_subfolders(
        source,
        [folder for split in splits for folder in _CAMVID.folders[split]],
        "CamVid in its published layout",
    )
    check_splits(_CAMVID, source, splits, progress)
    copies = []
    for split in splits:
        suffixes = (_CAMVID.image_suffixes, (_CAMVID.label_suffix,))
        for folder, wanted in zip(_CAMVID.folders[split], suffixes, strict=True):
            copies += [
                copy for copy in copies_of(source / folder, root / folder) if copy.target.suffix in wanted
            ]
    install(copies, source, progress, link=link)
    return finished(_CAMVID, root, splits, cache, progress)
