"""Bring a data set into the tree that the configs expect, and check it.

Every function can be called again: what is there already is kept, what is missing is added. A file appears
whole or not at all, and nothing of the user's is ever overwritten.
"""

import contextlib
import dataclasses
import filecmp
import functools
import importlib.util
import io
import multiprocessing
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from danseg.datasets.camvid import IMAGE_SUFFIXES, CamVidDataset
from danseg.datasets.check import SHOWN, DatasetReport, check_dataset, labelled_files
from danseg.datasets.frame_cache import CacheReport, write_cache
from danseg.errors import UserError
from danseg.io.files import whole_file
from danseg.io.parallel import available_cpus, parallel_map
from danseg.label_maps.cityscapes_labels import TRAIN_IDS
from danseg.rendered.street_set import HEIGHT, TRAIN_FRAMES, VAL_FRAMES, WIDTH, render

CITYSCAPES_ROOT = "data/cityscapes"
ADE20K_ROOT = "data/ade/ADEChallengeData2016"
CAMVID_ROOT = "data/camvid"
DEMO_ROOT = "data/demo"

_Path = str | os.PathLike
Reports = list[DatasetReport | CacheReport]
# Below this many polygon files a process its start, which imports everything, costs more than it saves.
_POLYGONS_PER_PROCESS = 64


# --- Cityscapes -------------------------------------------------------------------------------------------


def cityscapes(root: _Path = CITYSCAPES_ROOT, *, cache: bool = False, progress: bool = True) -> Reports:
    """Write the ``*_labelTrainIds.png`` of a Cityscapes tree that lack, then check the tree.

    They are made from the ``*_labelIds.png``; where these lack too, the ``*_polygons.json`` are drawn by
    the official cityscapesscripts. Labels that exist are kept as they are.

    Args:
        root: Folder that holds ``leftImg8bit`` and ``gtFine``.
        cache: Whether to unpack the training frames as well (:mod:`danseg.datasets.frame_cache`).
        progress: Whether to draw progress bars on stderr.

    Returns:
        A report for each of train and val that is there, and one of the cache.

    Raises:
        UserError: The tree or cityscapesscripts is missing, or a file is damaged; the message names it.
    """
    root = Path(root)
    halves = ("gtFine", "leftImg8bit")
    splits = [split for split in ("train", "val") if any((root / half / split).is_dir() for half in halves)]
    if not splits:
        raise UserError(
            f"there is no Cityscapes in {root.absolute()}: looked there for gtFine/train, gtFine/val, "
            "leftImg8bit/train and leftImg8bit/val. Download gtFine_trainvaltest.zip and "
            "leftImg8bit_trainvaltest.zip from www.cityscapes-dataset.com (free registration) and unpack "
            "both there"
        )
    from_ids, from_polygons = [], []
    for polygons_or_ids in sorted((root / "gtFine").glob("*/*/*_gtFine_*")):
        stem, _, kind = str(polygons_or_ids).rpartition("_gtFine_")
        stem += "_gtFine_"
        if Path(stem + "labelTrainIds.png").exists():
            continue
        if kind == "labelIds.png":
            from_ids.append(stem)
        elif kind == "polygons.json" and not Path(stem + "labelIds.png").exists():
            from_polygons.append(stem)

    if from_polygons and importlib.util.find_spec("cityscapesscripts") is None:
        raise UserError(
            f"{len(from_polygons)} frames have polygons but no labelIds, the first is "
            f"{from_polygons[0]}polygons.json. Drawing them takes the official scripts: "
            "pip install 'danseg[cityscapes]'"
        )
    if from_ids:
        parallel_map(_convert_ids, from_ids, description="Converting labelIds to trainIds", progress=progress)
    if from_polygons:
        processes = min(available_cpus(), len(from_polygons) // _POLYGONS_PER_PROCESS)
        # Drawing holds the interpreter's lock, so threads would not help. Spawned, because forking a process
        # that has threads can deadlock.
        pool = None
        if processes > 1:
            pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
        parallel_map(
            _draw_polygons,
            from_polygons,
            description="Drawing polygons as trainIds",
            progress=progress,
            pool=pool,
        )
    reports = [_check_cityscapes(root, split, "cityscapes", progress) for split in splits]
    return reports + (_cached(root, _cityscapes_config(root, "train"), progress) if cache else [])


def _cityscapes_config(root: Path, split: str) -> dict:
    return dict(
        type="CityscapesDataset",
        data_root=str(root),
        data_prefix=dict(img_path=f"leftImg8bit/{split}", seg_map_path=f"gtFine/{split}"),
    )


def _check_cityscapes(root: Path, split: str, command: str, progress: bool) -> DatasetReport:
    config = _cityscapes_config(root, split)
    command = f"python tools/prepare_dataset.py {command} {root}"
    return check_dataset(config, 19, split_name=split, prepare_command=command, progress=progress)


def _convert_ids(stem: str) -> None:
    source = Path(stem + "labelIds.png")
    try:
        with Image.open(source) as image:
            mode, ids = image.mode, np.asarray(image)
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        raise UserError(f"{source} cannot be decoded ({error}): copy or download it again") from error
    if mode not in ("L", "P"):
        raise UserError(
            f"{source} is no map of labelIds: it should have one channel of 8 bits, its mode is {mode}"
        )
    if ids.max() >= len(TRAIN_IDS):
        wrong = sorted(set(np.unique(ids[ids >= len(TRAIN_IDS)]).tolist()))
        raise UserError(f"{source} holds the ids {wrong}; labelIds go from 0 to {len(TRAIN_IDS) - 1}")
    with whole_file(Path(stem + "labelTrainIds.png")) as part:
        Image.fromarray(TRAIN_IDS[ids]).save(part, format="PNG")


def _draw_polygons(stem: str) -> None:
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    source = stem + "polygons.json"
    with whole_file(Path(stem + "labelTrainIds.png")) as part:
        try:
            annotation = Annotation()
            annotation.fromJsonFile(source)
            createLabelImage(annotation, "trainIds").save(part, format="PNG")
        except OSError:
            raise
        except (Exception, SystemExit) as error:  # the scripts end the program at an unknown label
            raise UserError(f"{source} cannot be drawn: {error!r}. Copy or download it again") from error


# --- ADE20K -----------------------------------------------------------------------------------------------


def ade20k(
    source: _Path, root: _Path = ADE20K_ROOT, *, cache: bool = False, progress: bool = True
) -> Reports:
    """Unpack or copy the ADE20K scene parsing benchmark (150 classes) to ``root``, then check it.

    Args:
        source: ``ADEChallengeData2016.zip``, or the folder it unpacks to.
        root: Where ``images`` and ``annotations`` shall lie.
        cache: Whether to unpack the training frames as well (:mod:`danseg.datasets.frame_cache`).
        progress: Whether to draw progress bars on stderr.

    Returns:
        A report each for train and val, and one of the cache.

    Raises:
        UserError: The source is not what it should be, or ``root`` holds other files.
    """
    source, root = Path(source), Path(root)
    folders = [
        f"{kind}/{split}" for split in ("training", "validation") for kind in ("images", "annotations")
    ]
    _require_source(source)
    with contextlib.ExitStack() as stack:
        if source.is_dir():
            base = source / "ADEChallengeData2016"
            base = base if base.is_dir() else source
            _require_subfolders(base, folders, "the folder that ADEChallengeData2016.zip unpacks to")
            _check_ade20k(base, progress)
            copies = [copy for folder in folders for copy in _folder(base / folder, root / folder)]
        else:
            copies = _ade20k_members(_open_zip(source, stack), source, folders, root)
        _install(copies, source, progress)
    reports = _check_ade20k(root, progress)
    return reports + (_cached(root, _ade20k_config(root, "training"), progress) if cache else [])


def _ade20k_config(root: Path, folder: str) -> dict:
    return dict(
        type="ADE20KDataset",
        data_root=str(root),
        data_prefix=dict(img_path=f"images/{folder}", seg_map_path=f"annotations/{folder}"),
    )


def _check_ade20k(root: Path, progress: bool) -> list[DatasetReport]:
    reports = []
    for split_name, folder in (("train", "training"), ("val", "validation")):
        config = _ade20k_config(root, folder)
        command = f"python tools/prepare_dataset.py ade20k SOURCE {root}"
        reports.append(
            check_dataset(config, 150, split_name=split_name, prepare_command=command, progress=progress)
        )
    return reports


def _open_zip(source: Path, stack: contextlib.ExitStack) -> zipfile.ZipFile:
    try:
        return stack.enter_context(zipfile.ZipFile(source))
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{source} is no complete zip archive ({error}): download ADEChallengeData2016.zip again"
        ) from error


def _ade20k_members(
    archive: zipfile.ZipFile, source: Path, folders: Sequence[str], root: Path
) -> list["_Copy"]:
    # The pattern also keeps out names such as ../../x, which an archive may hold to write elsewhere.
    wanted = re.compile(rf"(?:ADEChallengeData2016/)?({'|'.join(folders)})/([^/\\]+\.(?:jpg|png))")
    copies, found = [], set()
    for member in archive.infolist():
        match = wanted.fullmatch(member.filename)
        if match:
            folder, name = match.groups()
            found.add(folder)
            opener = functools.partial(_open_member, archive, member, source)
            copies.append(
                _Copy(f"{source}:{member.filename}", member.file_size, opener, root / folder / name)
            )
    missing = [folder for folder in folders if folder not in found]
    if missing:
        raise UserError(
            f"{source} is not ADEChallengeData2016.zip: no files were found in ADEChallengeData2016/"
            + ", ADEChallengeData2016/".join(missing)
        )
    return copies


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: Path) -> BinaryIO:
    try:
        return io.BytesIO(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{member.filename} in {source} cannot be unpacked ({error}): download the archive again"
        ) from error


# --- CamVid -----------------------------------------------------------------------------------------------


def camvid(
    source: _Path,
    root: _Path = CAMVID_ROOT,
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
    _require_source(source)
    if (source / "CamVid").is_dir() and not (source / "train").is_dir():
        source = source / "CamVid"
    splits = ["train", "val"]
    if (source / "test").is_dir() or (source / "testannot").is_dir():
        splits.append("test")
    folders = [split + kind for split in splits for kind in ("", "annot")]
    _require_subfolders(source, folders, "CamVid in its published layout")
    _check_camvid(source, splits, progress)
    copies = [
        copy
        for folder in folders
        for copy in _folder(source / folder, root / folder)
        if copy.target.suffix in ((".png",) if folder.endswith("annot") else IMAGE_SUFFIXES)
    ]
    _install(copies, source, progress, link=link)
    reports = _check_camvid(root, splits, progress)
    return reports + (_cached(root, _camvid_config(root, "train"), progress) if cache else [])


def _camvid_config(root: Path, split: str) -> dict:
    return dict(
        type="CamVidDataset",
        data_root=str(root),
        data_prefix=dict(img_path=split, seg_map_path=f"{split}annot"),
    )


def _check_camvid(root: Path, splits: Sequence[str], progress: bool) -> list[DatasetReport]:
    reports = []
    for split in splits:
        config = _camvid_config(root, split)
        classes = len(CamVidDataset.METAINFO["classes"])
        command = f"python tools/prepare_dataset.py camvid SOURCE {root}"
        reports.append(
            check_dataset(config, classes, split_name=split, prepare_command=command, progress=progress)
        )
    return reports


# --- the rendered set -------------------------------------------------------------------------------------


def demo(
    root: _Path = DEMO_ROOT,
    *,
    train: int = TRAIN_FRAMES,
    val: int = VAL_FRAMES,
    height: int = HEIGHT,
    width: int = WIDTH,
    seed: int = 0,
    cache: bool = False,
    progress: bool = True,
) -> Reports:
    """Render street scenes in the Cityscapes layout, then check them.

    Args:
        root: Folder of the set.
        train: Number of training frames.
        val: Number of validation frames.
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
        seed: Each gives another set.
        cache: Whether to unpack the training frames as well (:mod:`danseg.datasets.frame_cache`).
        progress: Whether to draw progress bars on stderr.

    Returns:
        A report for each split that has frames, and one of the cache.

    Raises:
        UserError: An argument is out of range, or ``root`` holds something else.
    """
    render(root, train=train, val=val, height=height, width=width, seed=seed, progress=progress)
    root = Path(root)
    reports = [
        _check_cityscapes(root, split, "demo", progress)
        for split, frames in (("train", train), ("val", val))
        if frames
    ]
    return reports + (_cached(root, _cityscapes_config(root, "train"), progress) if cache else [])


# --- unpacked frames --------------------------------------------------------------------------------------


def _cached(root: Path, config: dict, progress: bool) -> list[CacheReport]:
    """Unpack the frames of a training split that has been checked."""
    if not (root / config["data_prefix"]["img_path"]).is_dir():
        raise UserError(f"there are no training frames to cache in {root.absolute()}")
    images, labels = zip(*labelled_files(config, "train"), strict=True)
    return [write_cache(root, images, labels, progress=progress)]


# --- copying without harm ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Copy:
    """One file to be brought to ``target``."""

    source: str  # path, or archive and member, for messages and links
    size: int  # bytes
    open: Callable[[], BinaryIO]
    target: Path
    status: os.stat_result | None = None  # of a file on disk: its times are kept


def _require_source(source: Path) -> None:
    if not source.exists():
        raise UserError(f"there is no {source.absolute()}: name the place the data set was downloaded to")


def _require_subfolders(base: Path, folders: Sequence[str], what: str) -> None:
    missing = [folder for folder in folders if not (base / folder).is_dir()]
    if missing:
        raise UserError(f"{base.absolute()} is not {what}: it lacks the folders {', '.join(missing)}")


def _folder(source: Path, target: Path) -> list[_Copy]:
    """Every file of one folder, without those the system hides in it (.DS_Store)."""
    copies = []
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            status = path.stat()
            opener = functools.partial(path.open, "rb")
            copies.append(_Copy(str(path.absolute()), status.st_size, opener, target / path.name, status))
    return copies


def _install(copies: Sequence[_Copy], source: Path, progress: bool, link: bool = False) -> None:
    """Write what is missing; if anything else is in the way, write nothing at all."""
    targets = {copy.target for copy in copies}
    folders = sorted({copy.target.parent for copy in copies})
    strangers = [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path not in targets and not path.name.startswith(".")
    ]
    present = [copy for copy in copies if os.path.lexists(copy.target)]
    same = parallel_map(_is_same, present, description="Comparing what is there", progress=progress)
    strangers += [copy.target for copy, equal in zip(present, same, strict=True) if not equal]
    if strangers:
        more = f" and {len(strangers) - SHOWN} more" if len(strangers) > SHOWN else ""
        raise UserError(
            f"nothing was written, because files are in the way that differ from {source} or are not in it: "
            f"{', '.join(str(path) for path in strangers[:SHOWN])}{more}. Move them away, or name another "
            "folder"
        )
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
    already = {copy.target for copy in present}
    todo = [copy for copy in copies if copy.target not in already]
    verb = "Linking" if link else "Copying"
    work = _link if link else _write
    parallel_map(work, todo, description=f"{verb} to {os.path.commonpath(folders)}", progress=progress)


def _is_same(copy: _Copy) -> bool:
    if not copy.target.is_file() or copy.target.stat().st_size != copy.size:
        return False
    if copy.status is not None:
        return os.path.samestat(copy.status, copy.target.stat()) or filecmp.cmp(
            copy.source, copy.target, shallow=False
        )
    with copy.open() as stream:
        return stream.read() == copy.target.read_bytes()


def _write(copy: _Copy) -> None:
    with whole_file(copy.target) as part, copy.open() as source:
        with part.open("wb") as target:
            shutil.copyfileobj(source, target)
        if copy.status is not None:
            os.utime(part, ns=(copy.status.st_atime_ns, copy.status.st_mtime_ns))


def _link(copy: _Copy) -> None:
    try:
        copy.target.symlink_to(copy.source)
    except OSError as error:
        raise UserError(
            f"cannot link {copy.target}: {error.strerror}; copy instead, without --link"
        ) from error
