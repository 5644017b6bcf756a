"""What a data set says about its classes: names, colours, and how its labels become class ids.

A config does not hold this. mmseg merges its ``metainfo`` with that of the data set's class, draws colours
for classes that have none, and maps the labels of left out classes. Only the built data set knows the result.
"""

import copy
import os
from collections.abc import Mapping
from typing import Any

from danseg.datasets.wrappers import inner_configs, inner_datasets
from danseg.errors import UserError


def built_metainfo(dataset_config: dict[str, Any]) -> dict[str, Any]:
    """The meta information that a config's data set has once it is built; none of its files are needed.

    Args:
        dataset_config: config of a data set, such as ``cfg.test_dataloader.dataset``; it is not changed. Of
            several in a wrapper (ConcatDataset), the first counts, as in mmengine.

    Returns:
        As :func:`metainfo_of`.

    Raises:
        UserError: the data set cannot be built from its config, or names no classes.
    """
    import mmseg.datasets  # noqa: F401  (registration)
    from mmseg.registry import DATASETS

    config = next(inner_configs(dataset_config))
    arguments = dict(copy.deepcopy(config), pipeline=[], lazy_init=True)
    kind = arguments.pop("type", None)
    cls = DATASETS.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        raise UserError(f"there is no data set of type {kind!r}; import the module that registers it")
    # Not built by the registry: some of mmseg's data sets end by asserting that their folders exist. All that
    # is asked for here is known by then, and the object is still at hand.
    check_class_names(config)
    dataset = cls.__new__(cls)
    try:
        dataset.__init__(**arguments)
    except (AssertionError, KeyError, OSError, TypeError, ValueError) as error:
        is_known = "palette" in getattr(dataset, "_metainfo", {})
        if not (is_known and isinstance(error, (AssertionError, OSError))):
            raise UserError(f"{cls.__name__} cannot be built from its config: {error}") from error
    return metainfo_of(dataset)


def metainfo_of(dataset: Any) -> dict[str, Any]:
    """The meta information of a built data set; of several in a wrapper, that of the first.

    Returns:
        All of the data set's ``metainfo``, and in any case:

        * ``classes``: tuple of names, by class id;
        * ``palette``: list of (red, green, blue), one per class. Without colours in config and class, they
          are those that mmseg draws, always the same ones;
        * ``label_map``: replaces ids of the loaded label; None if it stays as it is;
        * ``reduce_zero_label``: whether id 0 in the files means "no class" and the others count from 1;
        * ``ignore_index``: the class id that means "no class".

    Raises:
        UserError: the data set names no classes, or names a file of classes that does not exist.
    """
    dataset = next(inner_datasets(dataset))
    meta = dict(getattr(dataset, "metainfo", {}))
    meta["classes"] = class_names(type(dataset).__name__, meta.get("classes"))
    meta["palette"] = [tuple(int(part) for part in colour) for colour in _palette(dataset, meta)]
    for name, default in dict(label_map=None, reduce_zero_label=False, ignore_index=255).items():
        meta.setdefault(name, getattr(dataset, name, default))
    return meta


def class_names(kind: str, classes: Any) -> tuple[str, ...]:
    """The names of a data set's classes as a tuple; ``kind`` is what to call the data set in messages.

    Raises:
        UserError: there are none, they are one string, or one of them is no string or occurs twice.
    """
    if isinstance(classes, str):  # mmengine takes the name of a file that it cannot find for the names
        raise UserError(
            f"{kind}: metainfo.classes is {classes!r}, which is no file; name a list of classes, as in "
            f"classes=({classes!r},), where the comma makes the list"
        )
    if classes is None or len(classes) == 0:
        raise UserError(f"{kind} names no classes: set metainfo=dict(classes=(...)) in its config")
    wrong = [name for name in classes if not isinstance(name, str)]
    if wrong or isinstance(classes, (set, frozenset)):  # a set has no order, so no ids
        raise UserError(
            f"{kind}: metainfo.classes={classes!r} must be a list of names, one string for each class, in "
            "the order of their ids"
        )
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    if twice:
        raise UserError(f"{kind}: metainfo.classes names {', '.join(twice)} more than once")
    return tuple(classes)


def give_the_set(kind: str) -> str:
    """How a message of a wrong number of classes goes on, if a ``folder`` recipe may not know its set."""
    return "give the folder recipe its set by --data, or else " if kind == "OwnDataset" else ""


def check_class_names(config: Mapping[str, Any]) -> None:
    """Raise an error if a data set's config names classes that are none; a file of names is allowed."""
    names = (config.get("metainfo") or {}).get("classes")
    if names is not None and not (isinstance(names, str) and os.path.isfile(names)):
        class_names(str(config.get("type")), names)


def complete_metainfo(dataset: Any) -> None:
    """Give a built data set and its wrappers the colours of :func:`metainfo_of`.

    Checkpoints, visualisers and metrics copy a data set's ``metainfo``. If it names no classes, it is left.
    """
    for part in (*getattr(dataset, "datasets", ()), getattr(dataset, "dataset", None)):
        if part is not None:
            complete_metainfo(part)
    meta = getattr(dataset, "_metainfo", None)
    if isinstance(meta, dict) and meta.get("classes"):
        meta["palette"] = metainfo_of(dataset)["palette"]


def _palette(dataset: Any, meta: Mapping[str, Any]) -> Any:
    """One colour per class; each keeps its own if the config puts the classes in another order."""
    own = getattr(type(dataset), "METAINFO", {})
    names, colours = own.get("classes", ()), own.get("palette", ())
    palette = meta.get("palette", ())
    # mmseg picks colours by name for a part of the classes only, and by place where all of them are there.
    reordered = len(names) == len(colours) and set(names) == set(meta["classes"])
    if reordered and [*map(tuple, palette)] == [*map(tuple, colours)]:
        return [colours[list(names).index(name)] for name in meta["classes"]]
    if len(palette) != len(meta["classes"]):
        raise UserError(
            f"{type(dataset).__name__} has {len(meta['classes'])} classes and {len(palette)} colours; set "
            "metainfo.palette to one (red, green, blue) per class"
        )
    return palette
