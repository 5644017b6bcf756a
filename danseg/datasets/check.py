"""Check a data set before anything is trained or evaluated on it.

The loading code accepts faults that can cost a user days. It crops a label whose size differs from its
image's, cuts 16-bit files to 8 bits, and drops unknown label ids from the score. It rotates a JPEG by its
EXIF tag, but not the label. A truncated file stops the training after hours, and the error does not name the
file. :func:`check_dataset` decodes every file once, names each bad one and says how to fix it. It remembers
the data sets that passed, so the next start on the same data takes seconds.
"""

import os
import textwrap

import numpy as np

from danseg.datasets.check_contents import allowed_ids, decode_all, fixes, refuse_masks
from danseg.datasets.check_files import build_dataset, list_pairs, require_folders
from danseg.datasets.check_report import DatasetReport, UnusableDataset, merged, require_classes
from danseg.datasets.loading import loading_step
from danseg.datasets.metainfo import give_the_set
from danseg.datasets.passed_checks import cache_dir, fingerprint, read_passed, remember
from danseg.datasets.wrappers import inner_configs
from danseg.errors import UserError
from danseg.io.words import listed
from danseg.known_datasets import command_for
from danseg.label_maps.id_formats import loaded_ids

__all__ = ["DatasetReport", "cache_dir", "check_dataset", "labelled_files"]


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
        dataset_cfg: Config of the data set, as in ``cfg.train_dataloader.dataset``. The data sets inside
            wrappers (RepeatDataset, ClassBalancedDataset, MultiImageMixDataset, ConcatDataset) are checked.
        num_classes: Number of classes of the model that will be trained or evaluated.
        split_name: What to call the split in messages ("train").
        prepare_command: The command that prepares the data set, for the message when it is missing.
        progress: Whether to draw a progress bar on stderr.
        with_labels: False for a split whose labels are not public: only its images are checked.

    Returns:
        What the split holds; several data sets are added up.

    Raises:
        UserError: Folders or files are missing, files are damaged, label and image differ in size, a file
            has more than 8 bits or an EXIF orientation, label ids are outside the classes, training would
            see one class alone, a mask of 0 and 255 would lose a class, or the number of classes differs
            from the model's. The message names files, ids and the fix.
    """
    parts = [
        _check_one(config, num_classes, split_name, prepare_command, progress, with_labels)
        for config in inner_configs(dataset_cfg)
    ]
    report = merged(parts)
    if with_labels:
        require_classes(report)
    return report


def labelled_files(dataset_cfg: dict, split_name: str) -> list[tuple[str, str]]:
    """Paths of the images and labels of a data set that :func:`check_dataset` has passed.

    Args:
        dataset_cfg: config of one data set, without wrappers.
        split_name: what to call the split in messages.
    """
    dataset = build_dataset(dataset_cfg, split_name)
    pairs = list_pairs(dataset, f"the {split_name} split of {type(dataset).__name__}", None, True)
    return [(image, label) for image, label in pairs if label is not None]


def _check_one(
    config: dict,
    num_classes: int,
    split_name: str,
    prepare_command: str | None,
    progress: bool,
    with_labels: bool,
) -> DatasetReport:
    dataset = build_dataset(config, split_name)
    kind = type(dataset).__name__
    data_root = getattr(dataset, "data_root", None) or ""
    root = os.path.abspath(data_root or ".")
    prepare_command = command_for(prepare_command, data_root)
    classes = tuple(dataset.metainfo.get("classes") or (str(i) for i in range(num_classes)))
    if len(classes) != num_classes:
        raise UserError(
            f"the model has {num_classes} classes, but {kind} of the {split_name} split has {len(classes)} "
            f"({textwrap.shorten(', '.join(classes), 60, placeholder=' ...')}); {give_the_set(kind)}"
            f"set num_classes={len(classes)} in decode_head and auxiliary_head, or choose the data set the "
            "model is meant for"
        )
    report = DatasetReport(split_name, kind, root, classes=classes)
    where = f"the {split_name} split of {kind}"

    require_folders(dataset, where, prepare_command, with_labels)
    pairs = list_pairs(dataset, where, prepare_command, with_labels)

    table = loaded_ids(dataset.reduce_zero_label, dataset.label_map)
    class_ids = table < num_classes
    allowed = allowed_ids(dataset, table, num_classes)
    # A config without a pipeline is checked for what mmseg's usual step loads.
    step, *steps = config.get("pipeline") or [dict(type="LoadImageFromFile")]
    distorted = any("PhotoMetricDistortion" in str(one["type"]) for one in steps)
    read = [str(step), distorted]
    key = fingerprint(pairs, root, [num_classes, table.tolist(), allowed.tolist(), *read])
    contents = read_passed(key)
    if contents is None:
        said = f"Checking {split_name} data"
        contents = decode_all(pairs, allowed, table, loading_step([step]), said, progress, distorted)
        if contents.problems:
            mend = fixes(dataset, contents, allowed, num_classes)
            raise UnusableDataset(f"{where} in {root} cannot be used", contents.problems, mend)
        remember(key, contents)
    else:
        report.cached = True

    if contents.doubtful:
        report.warnings.append(
            f"{len(contents.doubtful)} JPEGs have errors in their data, over which decoders guess: "
            f"{listed(contents.doubtful)}; look at them, and copy or download again what is spoiled"
        )
    report.files = [image for image, _ in pairs]
    report.images = len(pairs)
    report.labels = len(pairs) if with_labels else 0
    report.sizes = dict(contents.sizes)
    by_class = np.bincount(table[class_ids], weights=contents.raw_pixels[class_ids], minlength=num_classes)
    report.pixels = [int(count) for count in by_class]
    report.images_with = contents.images_with[:num_classes].tolist()
    report.ignored = int(contents.raw_pixels.sum()) - sum(report.pixels)
    if with_labels:
        refuse_masks(dataset, contents.raw_pixels, num_classes, f"{where} in {root}")
    return report
