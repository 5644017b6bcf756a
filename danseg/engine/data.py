"""Check a config's data sets before a run."""

import importlib
from collections.abc import Iterable, Sequence

import mmcv
from mmengine.config import Config
from mmengine.registry import init_default_scope

from danseg.datasets.check import DatasetReport, check_dataset
from danseg.datasets.metainfo import built_metainfo
from danseg.datasets.shared_pictures import shared_pictures
from danseg.datasets.wrappers import inner_configs
from danseg.engine.config.config_parts import dicts_of
from danseg.engine.config.options import require_model
from danseg.engine.config.type_names import type_name
from danseg.errors import UserError
from danseg.io.words import listed

_OWN = "its scores tell how well training was memorised; give it images of its own"


def check_data(
    config: Config,
    splits: tuple[str, ...],
    *,
    with_labels: bool = True,
    errors: list[UserError] | None = None,
) -> list[str]:
    """Check the data sets that a run will read, and that images which form a batch have one size.

    Args:
        config: the whole config.
        splits: the splits in use, of "train", "val" and "test". If two use the same data set, it is checked
            once.
        with_labels: False if the run needs no labels.
        errors: gets what is wrong with a split, so that the others are checked as well; by default the first
            error ends the check.

    Returns:
        One report per checked data set, to print.

    Raises:
        UserError: something is missing or does not fit; the message says what, where and how to fix it.
    """
    _import_parts(config)
    require_one_order(config, splits)
    reports, seen = [], []
    trained: list[str] = []
    for split in splits:
        loader = config.get(f"{split}_dataloader")
        if not loader or loader.dataset in seen:
            if loader and trained and split == "val":  # the only data set seen so far is train's
                reports.append(f"val: the data set of train\n  warning: {_OWN}")
            continue
        seen.append(loader.dataset)
        try:
            report = _checked(config, split, with_labels)
            if split != "train":
                _require_equal_sizes(loader, split, report.sizes)
        except UserError as error:
            if errors is None:
                raise
            errors.append(error)
            continue
        if split == "train":
            trained = report.files
        elif shared := shared_pictures(trained, report.files) if trained else []:
            names = listed(f"{one} (in train: {other})" for one, other in shared)
            report.warnings.append(
                f"{len(shared)} of {report.images} images of {split} are images of train too, {names}: {_OWN}"
            )
        reports.append(str(report))
    return reports


def check_split(config: Config, split: str) -> DatasetReport:
    """Check one split of a config, "train", "val" or "test"; raises as :func:`check_data` does."""
    _import_parts(config)
    return _checked(config, split, with_labels=True)


def loader_of(config: Config, split: str) -> dict:
    """The config of a split's data loader; a UserError if there is none."""
    loader = config.get(f"{split}_dataloader")
    if not loader:
        raise UserError(f"config {config.filename} has no {split}_dataloader")
    return loader


def _import_parts(config: Config) -> None:
    init_default_scope(config.get("default_scope") or "mmseg")
    for module in (config.get("custom_imports") or {}).get("imports", ()):
        importlib.import_module(module)


def _checked(config: Config, split: str, with_labels: bool) -> DatasetReport:
    return check_dataset(
        loader_of(config, split)["dataset"],
        number_of_classes(config),
        split_name=split,
        prepare_command=config.get("prepare_command"),
        with_labels=with_labels,
    )


def require_one_order(config: Config, splits: tuple[str, ...]) -> None:
    """Raise an error if the data sets of a run have the same classes in different orders.

    What the network learns as one class would be scored as another.
    """
    first: tuple[str, tuple[str, ...]] | None = None
    for split in splits:
        loader = config.get(f"{split}_dataloader")
        if isinstance(loader, (list, tuple)):
            raise UserError(
                f"{split}_dataloader lists {len(loader)} loaders; write one, whose dataset is "
                "dict(type='ConcatDataset', datasets=[...]): each of them is scored beside all"
            )
        for one in inner_configs(loader.dataset) if loader else ():
            try:
                found = split, built_metainfo(one)["classes"]
            except UserError:
                continue  # it names no classes, or is wrong in another way, which its own check says
            first = first or found
            if found[1] != first[1] and sorted(found[1]) == sorted(first[1]):
                raise UserError(
                    f"{split}_dataloader has the classes of {first[0]}_dataloader in another order: "
                    f"{listed(found[1])} instead of {listed(first[1])}; give both the same metainfo.classes"
                )


def number_of_classes(config: Config) -> int:
    """The number of classes of a config's heads, which :mod:`danseg.engine.config.agreement` has compared.

    Raises:
        UserError: the config has no model, or no head of it names one.
    """
    require_model(config)
    model = config.model.get("module") or config.model  # "module" if test-time augmentation wraps the model
    for key in ("decode_head", "auxiliary_head"):
        for _, head in dicts_of(key, model.get(key)):
            if "num_classes" in head:
                return head["num_classes"]
    raise UserError(f"config {config.filename}: model.decode_head has no num_classes")


def _require_equal_sizes(loader: dict, split: str, sizes: Iterable[tuple[int, int]]) -> None:
    """Refuse a batch of test images that the pipeline leaves with different sizes.

    Args:
        loader: config of the data loader.
        split: "val" or "test".
        sizes: heights and widths of the images as they are on disk.
    """
    batch = loader.get("batch_size") or 1
    for dataset in inner_configs(loader["dataset"]) if batch > 1 else ():
        after = (_after(dataset.get("pipeline") or (), size) for size in sizes)
        tested = {size for size in after if size is not None}
        if len(tested) > 1:
            shown = listed(f"{height}x{width}" for height, width in sorted(tested))
            raise UserError(
                f"{split}_dataloader.batch_size={batch} needs images of one size, but {split}_dataloader."
                f"dataset.pipeline gives {shown} (height x width): set {split}_dataloader.batch_size=1, or "
                "resize to one size with keep_ratio=False"
            )


def _after(pipeline: Sequence[dict], size: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of an image after a test pipeline; None if a transform changes them in its own way."""
    height, width = size
    for transform in pipeline:
        kind = type_name(transform)
        if kind == "Resize":
            scale, factor = transform.get("scale"), transform.get("scale_factor")
            if scale is None and factor is not None:
                factors = (factor, factor) if isinstance(factor, (int, float)) else tuple(factor)
                width, height = int(width * factors[0] + 0.5), int(height * factors[1] + 0.5)
            elif scale is None or isinstance(scale, int):
                return None
            elif transform.get("keep_ratio"):
                width, height = mmcv.rescale_size((width, height), tuple(scale))
            else:
                width, height = scale
        elif kind not in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs", "RandomFlip"):
            return None
    return height, width
