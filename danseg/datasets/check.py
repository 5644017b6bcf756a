"""Check a data set before anything is trained or evaluated on it.

The loading code underneath is forgiving in ways that cost a user days: a label of another size than its
image is cropped beside it, 16-bit files are cut to 8 bits, a JPEG is turned by its EXIF tag while its label
stays, an unknown label id is dropped from the score, a truncated file stops the training after hours and
does not say which file it was. :func:`check_dataset` decodes every file once, names each offender and says
how to mend it. What passed is remembered, so that the next start of the same data takes seconds.
"""

import contextlib
import copy
import dataclasses
import hashlib
import io
import json
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from danseg.datasets.decode import id_table
from danseg.errors import UserError
from danseg.io.parallel import parallel_map
from danseg.label_maps.cityscapes_labels import LABELS

SHOWN = 5  # offenders that are named before "and 12 more"
_CACHE_VERSION = 1  # raise it when the check learns to find something new
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_TRAIN_IDS_SUFFIX = "_labelTrainIds.png"
_WIDTH = 110


@dataclasses.dataclass
class DatasetReport:
    """What a checked split holds.

    Attributes:
        split_name: Name of the split, for people.
        dataset: Class of the data set.
        root: Absolute path of its root.
        images: Number of images.
        labels: Number of labels: equal to ``images``, or 0 for a split without labels.
        sizes: Number of images of each (height, width) in pixels.
        classes: Names of the classes, by train id.
        pixels: Labelled pixels of each class.
        ignored: Pixels that belong to no class.
        warnings: What is suspicious but does not keep the split from being used.
        cached: Whether the files were decoded by an earlier run and have not changed since.
    """

    split_name: str
    dataset: str
    root: str
    images: int = 0
    labels: int = 0
    sizes: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    pixels: list[int] = dataclasses.field(default_factory=list)
    ignored: int = 0
    warnings: list[str] = dataclasses.field(default_factory=list)
    cached: bool = False

    @property
    def absent(self) -> list[str]:
        """Classes without a single pixel; of a split without labels nothing is known: none."""
        if not self.labels:
            return []
        return [name for name, count in zip(self.classes, self.pixels, strict=True) if count == 0]

    def __str__(self) -> str:
        pairs = f"{self.images} images with labels" if self.labels else f"{self.images} images without labels"
        known = ", files unchanged since their last check" if self.cached else ""
        lines = [f"{self.split_name}: {self.dataset}, {pairs} in {self.root}{known}"]
        common = sorted(self.sizes.items(), key=lambda item: -item[1])
        sizes = ", ".join(f"{h}x{w} ({count})" for (h, w), count in common[:SHOWN])
        if len(common) > SHOWN:
            heights, widths = zip(*self.sizes, strict=True)
            sizes += (
                f" and {len(common) - SHOWN} more, heights {min(heights)} to {max(heights)}, "
                f"widths {min(widths)} to {max(widths)}"
            )
        lines.append(f"  height x width: {sizes}")
        if self.labels:
            labelled = sum(self.pixels)
            total = labelled + self.ignored
            lines.append(f"  pixels: {labelled / total:.1%} of {total:,} belong to a class; of these")
            ranked = sorted(zip(self.pixels, self.classes, strict=True), reverse=True)
            present = [f"{name} {count / labelled:.2%}" for count, name in ranked if count]
            lines += _wrapped(", ".join(present), "    ")
            if self.absent:
                lines += _wrapped("absent: " + ", ".join(self.absent), "  ")
        for warning in self.warnings:
            lines += _wrapped("warning: " + warning, "  ")
        return "\n".join(lines)


def check_dataset(
    dataset_cfg: dict,
    num_classes: int,
    *,
    split_name: str,
    prepare_command: str | None = None,
    progress: bool = True,
    with_labels: bool = True,
) -> DatasetReport:
    """Check every file of a data set against what training and evaluation assume.

    Args:
        dataset_cfg: Config of the data set, as in ``cfg.train_dataloader.dataset``. Wrappers that hold one
            data set (RepeatDataset, ClassBalancedDataset, MultiImageMixDataset) or several (ConcatDataset)
            are looked into.
        num_classes: Classes of the model that is to be trained or evaluated.
        split_name: What to call the split in messages ("train").
        prepare_command: The command that prepares the data set, for the message when it is missing.
        progress: Whether to draw a progress bar on stderr.
        with_labels: False for a split whose labels are not public: images alone are checked.

    Returns:
        What the split holds; of several data sets, together.

    Raises:
        UserError: Folders or files are missing, files are damaged, label and image differ in size, a file
            has more than 8 bits or is turned by an EXIF tag, label ids are outside the classes, or the
            number of classes differs from the model's. The message names files, ids and the fix.
    """
    reports = [
        _check_one(config, num_classes, split_name, prepare_command, progress, with_labels)
        for config in _without_wrappers(dataset_cfg)
    ]
    return _merged(reports)


def labelled_files(dataset_cfg: dict, split_name: str) -> list[tuple[str, str]]:
    """Paths of the images and labels of a data set that :func:`check_dataset` has passed.

    Args:
        dataset_cfg: config of one data set, without wrappers.
        split_name: what to call the split in messages.
    """
    dataset = _build(dataset_cfg, split_name)
    return _list_pairs(dataset, f"the {split_name} split of {type(dataset).__name__}", None, True)


# --- which data sets, which files -----------------------------------------------------------------------


def _without_wrappers(config: dict) -> Iterator[dict]:
    if "datasets" in config:
        for part in config["datasets"]:
            yield from _without_wrappers(part)
    elif "dataset" in config:
        yield from _without_wrappers(config["dataset"])
    else:
        yield config


def _build(config: dict, split_name: str) -> Any:
    """The data set itself, with its paths joined and its label map made, but no file touched."""
    import mmseg.datasets  # noqa: F401  (registration)
    from mmseg.registry import DATASETS

    config = dict(copy.deepcopy(config), pipeline=[], lazy_init=True, serialize_data=False)
    try:
        return DATASETS.build(config)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the data set of the {split_name} split cannot be built from its config: {error}"
        ) from error


def _check_one(
    config: dict,
    num_classes: int,
    split_name: str,
    prepare_command: str | None,
    progress: bool,
    with_labels: bool,
) -> DatasetReport:
    dataset = _build(config, split_name)
    kind = type(dataset).__name__
    root = os.path.abspath(getattr(dataset, "data_root", None) or ".")
    classes = tuple(dataset.metainfo.get("classes") or (str(i) for i in range(num_classes)))
    if len(classes) != num_classes:
        raise UserError(
            f"the model has {num_classes} classes, but {kind} of the {split_name} split has {len(classes)} "
            f"({textwrap.shorten(', '.join(classes), 60, placeholder=' ...')}); set num_classes="
            f"{len(classes)} in decode_head and auxiliary_head, or choose the data set the model is meant for"
        )
    report = DatasetReport(split_name, kind, root, classes=classes)
    where = f"the {split_name} split of {kind}"

    _require_folders(dataset, where, prepare_command, with_labels)
    pairs = _list_pairs(dataset, where, prepare_command, with_labels)
    if with_labels:
        report.warnings += _labels_without_image(dataset, pairs)

    table = id_table(dataset.reduce_zero_label, dataset.label_map)
    class_ids = table < num_classes
    allowed = class_ids | (table == dataset.ignore_index)
    key = _fingerprint(pairs, root, [num_classes, table.tolist(), dataset.ignore_index])
    contents = _read_cache(key)
    if contents is None:
        contents = _decode_all(pairs, allowed, f"Checking {split_name} data", progress)
        if contents.problems:
            fixes = _fixes(dataset, contents, allowed, num_classes)
            raise UserError(_describe(f"{where} in {root} cannot be used", contents.problems, fixes))
        _write_cache(key, contents)
    else:
        report.cached = True

    report.images = len(pairs)
    report.labels = len(pairs) if with_labels else 0
    report.sizes = dict(contents.sizes)
    by_class = np.bincount(table[class_ids], weights=contents.raw_pixels[class_ids], minlength=num_classes)
    report.pixels = [int(count) for count in by_class]
    report.ignored = int(contents.raw_pixels.sum()) - sum(report.pixels)
    if with_labels:
        report.warnings += _suspicious_ids(contents.raw_pixels, report, where)
    return report


def _require_folders(dataset: Any, where: str, prepare_command: str | None, with_labels: bool) -> None:
    prefixes = dataset.data_prefix
    wanted = {"images": prefixes.get("img_path")}
    if with_labels:
        wanted["labels"] = prefixes.get("seg_map_path")
        if not wanted["labels"]:
            raise UserError(f"{where} names no folder of labels: set data_prefix=dict(seg_map_path=...)")
    missing = [
        f"  {what}: {os.path.abspath(folder)} is no folder"
        for what, folder in wanted.items()
        if folder and not os.path.isdir(folder)
    ]
    ann_file = getattr(dataset, "ann_file", "")
    if ann_file and not os.path.exists(ann_file):
        missing.append(f"  list of frames: {os.path.abspath(ann_file)} is no file")
    if missing:
        lines = [f"{where} is missing. Looked for", *missing, _how_to_get(prepare_command)]
        raise UserError("\n".join(lines))


def _how_to_get(prepare_command: str | None) -> str:
    if prepare_command:
        return f"Prepare it with: {prepare_command}   (data/README.md shows the expected tree)"
    return "data/README.md shows the expected tree and the command that prepares it"


def _list_pairs(
    dataset: Any, where: str, prepare_command: str | None, with_labels: bool
) -> list[tuple[str, str | None]]:
    """Paths of every image and its label, all existing; the label is None in a split without labels."""
    try:
        dataset.full_init()
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    image_dir = dataset.data_prefix.get("img_path")
    if not infos:
        seen = _example_file(image_dir)
        suffix = getattr(dataset, "img_suffix", None)
        holds = f"the folder holds other files, such as {seen}" if seen else "the folder is empty"
        raise UserError(
            f"{where} has no image: looked for *{suffix} in {os.path.abspath(image_dir)}, {holds}\n"
            + _how_to_get(prepare_command)
        )
    pairs = [(info["img_path"], info["seg_map_path"] if with_labels else None) for info in infos]

    problems: dict[str, list[str]] = {}
    unconverted = []
    for image, label in pairs:
        if not os.path.isfile(image):
            problems.setdefault("images that are listed but do not exist", []).append(image)
        if label is not None and not os.path.isfile(label):
            if _official_source(label):
                unconverted.append(label)
            else:
                problems.setdefault("images without a label", []).append(f"{image}: no file {label}")
    if unconverted:
        kind = "labels without trainIds, though the labelIds or polygons to make them of are there"
        problems[kind] = unconverted
        fix = f"write them with: {_cityscapes_command(dataset)}"
        raise UserError(_describe(f"{where} is half prepared", problems, {kind: fix}))
    if problems:
        fixes = {"images without a label": "add the labels, or remove these images"}
        if len(problems.get("images without a label", ())) == len(pairs):
            seen = _example_file(dataset.data_prefix["seg_map_path"])
            fixes["images without a label"] = (
                f"the folder holds files such as {seen}: is the suffix {dataset.seg_map_suffix!r} right?"
                if seen
                else f"the folder of labels is empty. {_how_to_get(prepare_command)}"
            )
        raise UserError(_describe(f"{where} is incomplete", problems, fixes))
    return pairs


def _cityscapes_command(dataset: Any) -> str:
    return f"python tools/prepare_dataset.py cityscapes {dataset.data_root or 'data/cityscapes'}"


def _official_source(label: str) -> bool:
    """Whether Cityscapes' own files are there, from which this missing trainIds label can be made."""
    if not label.endswith(_TRAIN_IDS_SUFFIX):
        return False
    stem = label.removesuffix(_TRAIN_IDS_SUFFIX)
    return any(os.path.isfile(stem + suffix) for suffix in ("_labelIds.png", "_polygons.json"))


def _example_file(folder: str) -> str | None:
    for directory, subfolders, files in os.walk(folder):
        subfolders.sort()
        for name in sorted(files):
            if not name.startswith("."):
                return os.path.relpath(os.path.join(directory, name), folder)
    return None


def _labels_without_image(dataset: Any, pairs: Sequence[tuple[str, str | None]]) -> list[str]:
    if getattr(dataset, "ann_file", "") or getattr(dataset, "_indices", None) is not None:
        return []  # a part was chosen on purpose
    used = {os.path.normpath(label) for _, label in pairs}
    spare = [
        path
        for directory, _, files in os.walk(dataset.data_prefix["seg_map_path"])
        for name in files
        if name.endswith(dataset.seg_map_suffix)
        and not name.startswith(".")
        and (path := os.path.normpath(os.path.join(directory, name))) not in used
    ]
    if not spare:
        return []
    return [f"{_count(spare, 'labels have', 'label has')} no image and will not be used: {_first(spare)}"]


# --- the contents of the files --------------------------------------------------------------------------


@dataclasses.dataclass
class _Contents:
    """Everything learnt by decoding files, still in the label files' own ids."""

    sizes: Counter = dataclasses.field(default_factory=Counter)  # (height, width) -> images
    raw_pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    problems: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # kind -> offenders
    wrong_ids: set[int] = dataclasses.field(default_factory=set)


def _decode_all(
    pairs: Sequence[tuple[str, str | None]], allowed: np.ndarray, description: str, progress: bool
) -> _Contents:
    contents = _Contents()
    findings = parallel_map(
        lambda pair: _decode_pair(*pair, allowed), pairs, description=description, progress=progress
    )
    for finding in findings:
        contents.sizes.update([finding.size] if finding.size else [])
        if finding.raw_pixels is not None:
            contents.raw_pixels += finding.raw_pixels
        contents.wrong_ids.update(finding.wrong_ids)
        for kind, text in finding.problems:
            contents.problems.setdefault(kind, []).append(text)
    return contents


@dataclasses.dataclass
class _Finding:
    size: tuple[int, int] | None = None
    raw_pixels: np.ndarray | None = None
    wrong_ids: tuple[int, ...] = ()
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)


# Kinds of problem, as messages call them.
_UNREADABLE = "files that cannot be decoded"
_DEEP = "files with more than 8 bits a channel, which loading would cut to 8"
_TURNED = "images with an EXIF orientation, by which loading turns them but not their labels"
_COLOURED = "labels that are no single-channel maps of class ids"
_LOSSY = "labels stored as JPEG, whose compression changes ids"
_SIZES = "labels that differ from their image in size"
_IDS = "labels with ids outside the classes"


def _decode_pair(image_path: str, label_path: str | None, allowed: np.ndarray) -> _Finding:
    finding = _Finding()
    image = _decode(image_path, finding)
    if image is not None:
        finding.size = (image.height, image.width)
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        if orientation in range(2, 9):
            finding.problems.append((_TURNED, f"{image_path}: orientation {orientation}"))
    label = _decode(label_path, finding) if label_path is not None else None
    if label is None:
        return finding
    if label.format == "JPEG":
        finding.problems.append((_LOSSY, label_path))
        return finding
    if label.mode not in ("L", "P", "1"):
        finding.problems.append((_COLOURED, f"{label_path}: {label.mode}"))
        return finding
    if image is not None and image.size != label.size:
        sizes = f"{label.height}x{label.width} instead of {image.height}x{image.width}"
        finding.problems.append((_SIZES, f"{label_path}: {sizes} as {image_path}"))
    ids = np.asarray(label, dtype=np.uint8)
    finding.raw_pixels = np.bincount(ids.ravel(), minlength=256)
    wrong = np.flatnonzero((finding.raw_pixels > 0) & ~allowed)
    if len(wrong):
        finding.wrong_ids = tuple(wrong.tolist())
        count = int(finding.raw_pixels[wrong].sum())
        finding.problems.append((_IDS, f"{label_path}: {_ranges(wrong.tolist())} ({count} pixels)"))
    return finding


def _decode(path: str, finding: _Finding) -> Image.Image | None:
    """The decoded file if it is whole and has 8 bits; otherwise None and a problem."""
    try:
        data = Path(path).read_bytes()
        if not data:
            raise ValueError("the file has 0 bytes")
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        reason = str(error) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "no known image format"
        finding.problems.append((_UNREADABLE, f"{path}: {reason}"))
        return None
    bits = _bits(image, data)
    if bits > 8:
        finding.problems.append((_DEEP, f"{path}: {bits} bits"))
        return None
    return image


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits a channel in the file; Pillow's mode alone hides the 16 bits of a colour PNG or TIFF."""
    if image.format == "PNG":
        return data[24]  # IHDR: 8 signature, 4 length, 4 "IHDR", 4 width, 4 height, 1 bit depth
    if image.format == "TIFF":
        return max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,)))
    return {"I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def _fixes(dataset: Any, contents: _Contents, allowed: np.ndarray, num_classes: int) -> dict[str, str]:
    suffix = getattr(dataset, "seg_map_suffix", "")
    write_train_ids = _cityscapes_command(dataset)
    if suffix.endswith("_labelIds.png"):
        ids = (
            f"seg_map_suffix={suffix!r} selects the labelIds of Cityscapes, the classes are its trainIds: "
            f"use '_gtFine_labelTrainIds.png', written by {write_train_ids}"
        )
    elif suffix.endswith(_TRAIN_IDS_SUFFIX) and max(contents.wrong_ids, default=0) < len(LABELS):
        ids = f"these look like labelIds under the name of trainIds: delete them and run {write_train_ids}"
    elif not dataset.reduce_zero_label and contents.wrong_ids == {num_classes}:
        ids = (
            f"ids up to {num_classes} suggest that the classes count from 1 and 0 means no class, as in "
            "ADE20K: set reduce_zero_label=True in the data set"
        )
    else:
        ids = f"allowed are {_ranges(np.flatnonzero(allowed).tolist())}; give the pixels one of these ids"
        if allowed[dataset.ignore_index]:
            ids += f", {dataset.ignore_index} where they belong to no class"
    return {
        _UNREADABLE: "copy or download them again",
        _DEEP: "save them with 8 bits a channel",
        _TURNED: (
            "turn the pixels and drop the tag (PIL.ImageOps.exif_transpose) or drop the tag alone, whichever "
            "fits the labels"
        ),
        _COLOURED: "store ids, not colours, in an 8-bit PNG of one channel",
        _LOSSY: "make them anew as PNG from the original annotation",
        _SIZES: "put the right label beside each image",
        _IDS: ids,
    }


def _suspicious_ids(raw_pixels: np.ndarray, report: DatasetReport, where: str) -> list[str]:
    if np.flatnonzero(raw_pixels).tolist() == [0, 255]:
        return [
            f"the labels of {where} hold 0 and 255 alone. A mask of 0 and 255 must be stored as 0 and 1: 255 "
            "is ignored"
        ]
    if sum(report.pixels) == 0:
        return [f"not one pixel of {where} belongs to a class"]
    return []


# --- words ------------------------------------------------------------------------------------------------


def _describe(header: str, problems: dict[str, list[str]], fixes: dict[str, str]) -> str:
    lines = [header + ":"]
    for kind, offenders in problems.items():
        first = f", the first {SHOWN}" if len(offenders) > SHOWN else ""
        lines.append(f"- {kind}: {len(offenders)}{first}")
        lines += [f"    {offender}" for offender in offenders[:SHOWN]]
        if kind in fixes:
            lines.append(f"  {fixes[kind]}")
    return "\n".join(lines)


def _count(items: Sequence, many: str, one: str) -> str:
    return f"{len(items)} {one if len(items) == 1 else many}"


def _first(paths: Iterable[str]) -> str:
    paths = sorted(paths)
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more


def _ranges(ids: Sequence[int]) -> str:
    """'0 to 10, 255' for sorted ids."""
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a} to {b}" for a, b in runs)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _merged(reports: list[DatasetReport]) -> DatasetReport:
    if not reports:
        raise UserError("the config names no data set at all")
    first, *others = reports
    for other in others:
        first.root += f" and {other.root}" if other.root not in first.root.split(" and ") else ""
        first.dataset += f" + {other.dataset}" if other.dataset != first.dataset else ""
        first.images += other.images
        first.labels += other.labels
        first.sizes = dict(Counter(first.sizes) + Counter(other.sizes))
        first.pixels = [a + b for a, b in zip(first.pixels, other.pixels, strict=True)]
        first.ignored += other.ignored
        first.warnings += other.warnings
        first.cached = first.cached and other.cached
    return first


# --- what passed before -----------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Where passed checks are remembered: outside the data, which may be read-only or shared."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "danseg" / "checked"


def _fingerprint(pairs: Sequence[tuple[str, str | None]], root: str, parameters: list) -> str:
    """Changes when a file is added, removed, renamed, written again, or when other ids are allowed."""
    digest = hashlib.sha256(json.dumps([_CACHE_VERSION, parameters]).encode())
    for pair in pairs:
        for path in pair:
            if path is not None:
                status = os.stat(path)
                entry = [os.path.relpath(path, root), status.st_size, status.st_mtime_ns]
                digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def _read_cache(key: str) -> _Contents | None:
    try:
        stored = json.loads((cache_dir() / f"{key}.json").read_text(encoding="utf-8"))
        sizes = Counter({(int(h), int(w)): int(count) for h, w, count in stored["sizes"]})
        raw_pixels = np.array(stored["raw_pixels"], dtype=np.int64)
        if raw_pixels.shape != (256,):
            return None
        return _Contents(sizes, raw_pixels)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # absent or damaged: the files are simply decoded again


def _write_cache(key: str, contents: _Contents) -> None:
    stored = {
        "sizes": [[h, w, count] for (h, w), count in contents.sizes.items()],
        "raw_pixels": contents.raw_pixels.tolist(),
    }
    target = cache_dir() / f"{key}.json"
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(stored), encoding="utf-8")
        os.replace(part, target)
    except OSError:  # a cache that cannot be written costs time, nothing else
        with contextlib.suppress(OSError):
            part.unlink()
