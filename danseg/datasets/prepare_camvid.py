"""CamVid: copied or linked from a folder in its published layout."""

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
        source: Folder in the published layout, ``train/ trainannot/ val/ valannot/`` and, if there,
            ``test/ testannot/``; or a folder whose subfolder ``CamVid`` is one. Images may be PNG or JPEG.
        root: Where the folders shall lie.
        link: Whether to make symbolic links to the source's files, which must then stay, and not copies.
        cache: Whether to unpack the training frames as well (:mod:`danseg.datasets.frame_cache`).
        progress: Whether to draw progress bars on stderr.

    Returns:
        A report for each split, and one of the cache.

    Raises:
        UserError: The source is not what it should be, or ``root`` holds other files.
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
