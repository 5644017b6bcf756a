"""Check a config's data sets before a run."""

import importlib

from mmengine.config import Config
from mmengine.registry import init_default_scope

from danseg.datasets.check import check_dataset
from danseg.datasets.metainfo import built_metainfo
from danseg.datasets.wrappers import inner_configs
from danseg.errors import UserError
from danseg.io.words import listed


def check_data(config: Config, splits: tuple[str, ...], *, with_labels: bool = True) -> list[str]:
    """Check the data sets that a run will read, and that the model's heads have the right number of classes.

    Args:
        config: the whole config.
        splits: the splits in use, of "train", "val" and "test". If two use the same data set, it is checked
            once.
        with_labels: False if the run needs no labels.

    Returns:
        One report per checked data set, to print.

    Raises:
        UserError: something is missing or does not fit; the message says what, where and how to fix it.
    """
    init_default_scope(config.get("default_scope", "mmseg"))
    for module in (config.get("custom_imports") or {}).get("imports", ()):
        importlib.import_module(module)
    require_one_order(config, splits)
    reports, seen = [], []
    for split in splits:
        loader = config.get(f"{split}_dataloader")
        if not loader or loader.dataset in seen:
            continue
        seen.append(loader.dataset)
        num_classes = agreed_num_classes(config, loader.dataset)
        report = check_dataset(
            loader.dataset,
            num_classes,
            split_name=split,
            prepare_command=config.get("prepare_command"),
            with_labels=with_labels,
        )
        reports.append(str(report))
    return reports


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


def agreed_num_classes(config: Config, dataset: dict) -> int:
    """The number of classes, on which the data set and all heads must agree.

    Raises:
        UserError: a head and the data set differ.
    """
    from mmseg.registry import DATASETS

    model = config.model.get("module") or config.model  # "module" if test-time augmentation wraps the model
    heads = {}
    for key in ("decode_head", "auxiliary_head"):
        head = model.get(key)
        for index, one in enumerate(head if isinstance(head, (list, tuple)) else [head] if head else []):
            if "num_classes" in one:
                place = f"model.{key}.{index}" if isinstance(head, (list, tuple)) else f"model.{key}"
                heads[place] = one.num_classes
    if not heads:
        raise UserError(f"config {config.filename}: model.decode_head has no num_classes")
    for one in inner_configs(dataset):
        cls = DATASETS.get(one["type"]) if isinstance(one["type"], str) else one["type"]
        if cls is None:
            raise UserError(f"config {config.filename}: there is no dataset type {one['type']!r}")
        names = (one.get("metainfo") or {}).get("classes") or getattr(cls, "METAINFO", {}).get("classes")
        expected = len(built_metainfo(one)["classes"]) if names else next(iter(heads.values()))
        wrong = [f"{name}.num_classes is {number}" for name, number in heads.items() if number != expected]
        if wrong:
            raise UserError(
                f"{one['type']} has {expected} classes, but {' and '.join(wrong)}; "
                f"set --cfg-options num_classes={expected}, or metainfo.classes of the dataset"
            )
    return expected
