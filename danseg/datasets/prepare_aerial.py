"""Prepare aerial pictures: cut them, and their labels, into tiles that training reads quickly.

A crop of a picture of 6000x6000 pixels would decode all of it. The tiles are a data set of one's own, with a
``dataset.yaml`` (:mod:`danseg.dataset_file`).
"""

import itertools
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from danseg.dataset_file import FILE_NAME, DatasetFile, dataset_text, read_dataset_file
from danseg.datasets.after_preparing import Reports
from danseg.datasets.check import check_dataset
from danseg.datasets.copying import require_source
from danseg.datasets.own.written_files import WrittenFiles, written_files
from danseg.errors import UserError
from danseg.io.images import read_image
from danseg.io.parallel import parallel_map
from danseg.io.source_files import files_below
from danseg.io.words import counted, listed, ranges
from danseg.label_maps.id_formats import VOID
from danseg.label_maps.label_png import read_label_map
from danseg.shipped import as_started

_OTHER_COLOURS = 0.01  # share of an image's pixels that may have a colour of no class, as at blurred edges


class Scene(NamedTuple):
    """A picture and its label; ``name`` is without a suffix, and may have folders."""

    split: str
    name: str
    image: Path
    label: Path


class Source(NamedTuple):
    """Pictures with labels: ``classes_of`` reads a label as classes (H, W) uint8, 255 for none."""

    scenes: list[Scene]
    names: Sequence[str]
    colours: Sequence[Sequence[int]]
    classes_of: Callable[[Path], np.ndarray]


def aerial(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    published: str | None = None,
    tile: int = 512,
    overlap: int = 128,
    progress: bool = True,
) -> Reports | list:
    """Cut large pictures and their labels into tiles with a ``dataset.yaml``, then check them.

    Tiles of training overlap, and the last ones of a row and a column end with the picture. Those of other
    splits do not, so that each pixel is scored once; the last ones may be smaller. Tiles in which no pixel
    has a class are left out.

    Args:
        source: The place of a ``dataset.yaml`` whose pictures are to be cut; or, with ``published``, the
            folder that the data set was unpacked to.
        out: Folder for the tiles.
        published: "potsdam" (ISPRS: ``*_RGB.tif`` with labels of six colours, ``*_label.tif``; the official
            test pictures validate) or "loveda" (``Train`` and ``Val`` with ``images_png`` and ``masks_png``,
            whose id 0 means no data).
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbours share in training.
        progress: Whether to draw a progress bar on stderr.

    Returns:
        One report per split, and the command that comes next.

    Raises:
        UserError: The source is not what it should be, or ``out`` holds other files.
    """
    if not 0 <= overlap < tile:
        raise UserError(f"--tile {tile} --overlap {overlap}: give a side above 0, and less overlap than that")
    source, out = Path(source), Path(os.path.abspath(out))
    require_source(source)
    if published is None:
        found = _of_own(read_dataset_file(source))
    elif published in _PUBLISHED:
        found = _PUBLISHED[published](source)
    else:
        raise UserError(f"--set {published!r}: choose one of {', '.join(_PUBLISHED)}")
    arguments = dict(source=os.path.abspath(source), published=published, tile=tile, overlap=overlap)
    splits = list(dict.fromkeys(scene.split for scene in found.scenes))
    with written_files(out, arguments) as files:
        written = parallel_map(
            lambda scene: _cut(scene, found, files, tile, overlap if scene.split == "train" else 0),
            found.scenes,
            description="Cutting tiles",
            progress=progress,
        )
        for split in splits:
            of_split = zip(found.scenes, written, strict=True)
            names = [name for scene, tiles in of_split if scene.split == split for name in tiles]
            files.add_text(f"{split}.txt", "".join(f"{name}\t{name}\n" for name in names))
        text = dataset_text(
            images="images",
            masks="masks",
            names=found.names,
            colours=[(red, green, blue) for red, green, blue in found.colours],
            mapping=None,
            ignore=[VOID],
            splits={split: f"{split}.txt" for split in splits},
        )
        files.add_text(FILE_NAME, text)
        reports = [
            check_dataset(
                dict(type="OwnDataset", data_root=str(out), split=split),
                len(found.names),
                split_name=split,
                progress=progress,
            )
            for split in splits
        ]
        files.finish()
    place = shlex.quote(os.path.relpath(out))
    following = as_started(f"next:\n  python tools/train.py configs/danet_r50_folder.py --data {place}")
    return [*reports, following]


def _cut(scene: Scene, source: Source, files: WrittenFiles, tile: int, overlap: int) -> list[str]:
    """Write the tiles of a scene; their names."""
    image, classes = read_image(scene.image), source.classes_of(scene.label)
    if image.shape[:2] != classes.shape:
        label, picture = ("x".join(map(str, one.shape[:2])) for one in (classes, image))
        raise UserError(
            f"{scene.label} has {label} pixels, {scene.image} {picture}: put the right label beside it"
        )
    names = []
    for top, left in itertools.product(*(_starts(side, tile, overlap) for side in classes.shape)):
        part = np.s_[top : top + tile, left : left + tile]
        if (classes[part] != VOID).any():
            name = f"{scene.split}/{scene.name}_{top}_{left}.png"
            files.add_picture(f"images/{name}", image[part])
            files.add_mask(f"masks/{name}", classes[part], source.colours)
            names.append(name)
    return names


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin. With overlap, the last one ends with the picture."""
    if not overlap:
        return list(range(0, side, tile))
    last = max(side - tile, 0)
    return [*range(0, last, tile - overlap), last]


def _of_own(file: DatasetFile) -> Source:
    """The pictures of a ``dataset.yaml``."""
    pairs = [(split, *pair) for split in file.splits for pair in file.pairs(split)]
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(image)) for _, image, _ in pairs])
    table = np.full(256, -1)
    table[list(file.label_ids)] = list(file.label_ids.values())

    def classes_of(label: Path) -> np.ndarray:
        ids = read_label_map(label)
        wrong = np.unique(ids[table[ids] < 0])
        if wrong.size:
            raise UserError(
                f"{label} holds the ids {ranges(wrong.tolist())}, of which {file.path} says nothing"
            )
        return table[ids].astype(np.uint8)

    scenes = [
        Scene(
            split,
            os.path.splitext(os.path.relpath(os.path.abspath(image), shared))[0],
            Path(image),
            Path(mask),
        )
        for split, image, mask in pairs
    ]
    return Source(scenes, file.names, file.colours, classes_of)


def _metainfo(kind: str) -> tuple[Sequence[str], Sequence[Sequence[int]]]:
    """Names and colours, which mmseg's data set has."""
    import mmseg.datasets  # noqa: F401  (registration)
    from mmseg.registry import DATASETS

    meta = DATASETS.get(kind).METAINFO
    return meta["classes"], meta["palette"]


def _potsdam(source: Path) -> Source:
    """ISPRS Potsdam, whose official test pictures are those of the columns 13 to 15."""
    names, colours = _metainfo("PotsdamDataset")
    images, labels = (_by_name(files_below(source, suffix), suffix) for suffix in ("_RGB.tif", "_label.tif"))
    _require_both(images, labels, source, "Potsdam: *_RGB.tif with *_label.tif (2_Ortho_RGB, 5_Labels_all)")

    def split_of(name: str) -> str:
        column = re.search(r"_(\d+)$", name)
        return "val" if column and int(column[1]) >= 13 else "train"

    codes = {int(_code(np.array(colour))): number for number, colour in enumerate(colours)}

    def classes_of(label: Path) -> np.ndarray:
        painted = _code(read_image(label).astype(np.int64))
        classes = np.full(painted.shape, VOID, np.uint8)
        for code, number in codes.items():
            classes[painted == code] = number
        share = float((classes == VOID).mean())
        if share > _OTHER_COLOURS:
            raise UserError(
                f"{label}: {share:.0%} of its pixels have other colours than Potsdam's six classes"
            )
        return classes

    scenes = [Scene(split_of(name), name, images[name], labels[name]) for name in images]
    return Source(scenes, names, colours, classes_of)


def _code(colours: np.ndarray) -> np.ndarray:
    """A number for each colour of (..., 3)."""
    return colours[..., 0] * 65536 + colours[..., 1] * 256 + colours[..., 2]


def _loveda(source: Path) -> Source:
    """LoveDA, whose masks have 0 for no data and classes from 1."""
    names, colours = _metainfo("LoveDADataset")
    table = np.array([VOID, *range(len(names))], np.uint8)

    def classes_of(label: Path) -> np.ndarray:
        ids = read_label_map(label)
        if ids.max() > len(names):
            raise UserError(f"{label} holds id {ids.max()}; LoveDA's are 0, no data, to {len(names)}")
        return table[ids]

    scenes = [scene for split in ("train", "val") for scene in _of_loveda(source, split)]
    return Source(scenes, names, colours, classes_of)


def _of_loveda(source: Path, split: str) -> Iterator[Scene]:
    root = source / split.capitalize()
    images = (
        {path for path in files_below(root, ".png") if path.parent.name == "images_png"}
        if root.is_dir()
        else ()
    )
    found = {f"{path.parent.parent.name}/{path.stem}": path for path in sorted(images)}
    masks = {name: path.parent.parent / "masks_png" / path.name for name, path in found.items()}
    there = {name: mask for name, mask in masks.items() if mask.is_file()}
    _require_both(found, there, root, f"LoveDA's {root.name}: Urban and Rural with images_png and masks_png")
    for name, image in found.items():
        yield Scene(split, name, image, masks[name])


def _by_name(paths: Sequence[Path], suffix: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        first = found.setdefault(path.name.removesuffix(suffix), path)
        if first is not path:
            raise UserError(f"{first} and {path} stand for the same picture; leave one of them there")
    return found


def _require_both(images: dict[str, Path], labels: dict[str, Path], root: Path, what: str) -> None:
    if not images:
        raise UserError(f"{root.absolute()} is not {what}: it has no such picture")
    alone = [path for name, path in images.items() if name not in labels]
    if alone:
        raise UserError(
            f"{counted(len(alone), 'picture')} in {root} without a label: {listed(alone)}; {what} has one "
            "each"
        )


_PUBLISHED = {"potsdam": _potsdam, "loveda": _loveda}
PUBLISHED = tuple(_PUBLISHED)
