"""What data sets, pipelines, heads and metrics have to agree on about labels: classes and ignored values."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.fileio import list_from_file
from mmseg.models.decode_heads.decode_head import BaseDecodeHead

from danseg.engine.config.config_parts import Part, as_dict, resolve
from danseg.engine.config.rules.run import Run, has_plain_losses, is_a, is_known, takes
from danseg.engine.config.signatures import argument
from danseg.engine.config.type_names import type_name

# Arguments whose value marks pixels that do not count, in data sets, transforms, losses, heads and metrics.
_IGNORED = ("ignore_index", "ignore_label", "seg_pad_val")


def class_names(run: Run) -> Iterator[str]:
    """``metainfo.classes`` of every data set, as a tuple of names, as many as every head has classes."""
    heads = [
        (head, head.config["num_classes"])
        for head in run.heads()
        if "num_classes" in head.config
        and (head.place.startswith("model.decode_head") or has_plain_losses(head))
    ]
    seen: list[Any] = []
    for split in run.splits:
        for dataset in run.datasets(split):
            place = f"{dataset.place}.metainfo.classes"
            classes = as_dict(dataset.config.get("metainfo")).get("classes")
            if isinstance(classes, str):
                if not os.path.isfile(classes):
                    yield (
                        f"{place}={classes!r} is a text, neither a tuple of names nor a file of them; for "
                        f"one name write classes=({classes!r},)"
                    )
                    continue
                classes = list_from_file(classes)
            if classes is not None and not (
                isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
            ):
                yield f"{place}={classes!r}: give a tuple of names"
                continue
            names = list(classes or getattr(resolve(dataset), "METAINFO", {}).get("classes") or ())
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                yield f"{place} names {', '.join(twice)} twice"
            # A data set that names no classes leaves the heads to be compared with each other.
            count, source = len(names), f"{dataset.place} ({_name(dataset)}) has {len(names)} classes"
            if not names and heads:
                count, source = heads[0][1], f"{heads[0][0].place}.num_classes={heads[0][1]}"
            wrong = [f"{head.place}.num_classes={number}" for head, number in heads if number != count]
            if wrong and (wrong, count) not in seen:  # train and val usually are of one kind
                seen.append((wrong, count))
                yield f"{source}, but {', '.join(wrong)}; set num_classes={count}, or {place}"


def _name(part: Part) -> str:
    kind = part.config.get("type")
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def ignored_values(run: Run) -> Iterator[str]:
    """The value of pixels that do not count: one for all that make, load and read a split's labels."""
    for split in run.splits:
        places: dict[str, Any] = {}
        for part in [*run.datasets(split), *run.transforms(split), *run.metrics(split)]:
            places.update(_ignored(part))
        heads = [head for head in run.heads() if is_a(head, BaseDecodeHead)]
        if split == "train" and all("num_classes" in head.config for head in heads):  # else it is of depths
            preprocessor = run.preprocessor()
            for part in [] if preprocessor is None else [preprocessor]:
                places.update(_ignored(part))
            for head in heads:
                places.update(_ignored(head))
                for loss in run.losses(head):
                    places.update(_ignored(loss))
        yield from _one_value(places)


def _ignored(part: Part) -> Iterator[tuple[str, int]]:
    for key in _IGNORED:
        # What a user's own class does with a default is not known.
        value = argument(part, key) if takes(part, key) and is_known(part) else part.config.get(key)
        if isinstance(value, int) and not _is_image_of_edges(part):
            yield f"{part.place}.{key}", value
    padding = part.config.get("pad_val")
    if isinstance(padding, Mapping) and isinstance(padding.get("seg"), int):  # mmcv's Pad
        yield f"{part.place}.pad_val.seg", padding["seg"]


def _is_image_of_edges(part: Part) -> bool:
    return type_name(part.config).startswith("BioMedical")  # volumes, whose background is a class


def _one_value(places: dict[str, int]) -> Iterator[str]:
    """A message if the values differ: the rare ones with their places, and an example of the common one."""
    values = list(places.values())
    if len(set(values)) < 2:
        return
    common = max(dict.fromkeys(values), key=values.count)
    rare = [f"{place}={value}" for place, value in places.items() if value != common]
    example = [f"{place}={value}" for place, value in places.items() if value == common]
    yield (
        f"pixels that do not count have one value: {', '.join(rare)}, but {', '.join(example)}; set the same "
        "everywhere"
    )


def zero_labels(run: Run) -> Iterator[str]:
    """``reduce_zero_label`` of data sets and of the transforms that load their labels."""
    by_type: dict[Any, tuple[str, Any]] = {}
    for split in run.splits:
        for dataset in run.datasets(split):
            reduced = argument(dataset, "reduce_zero_label")
            if not takes(dataset, "reduce_zero_label"):
                continue
            for transform in run.transforms(split):
                if not transform.place.startswith(f"{dataset.place}."):
                    continue
                own = argument(transform, "reduce_zero_label")
                if takes(transform, "reduce_zero_label") and own is not None and own != reduced:
                    yield (
                        f"{transform.place}.reduce_zero_label={own}, but "
                        f"{dataset.place}.reduce_zero_label={reduced}: leave out the former"
                    )
            other, value = by_type.setdefault(resolve(dataset), (dataset.place, reduced))
            if value != reduced:
                yield (
                    f"{dataset.place}.reduce_zero_label={reduced}, but {other}.reduce_zero_label={value}: "
                    "the classes of one kind of data set have the same numbers in every split"
                )


def pickled_files(run: Run) -> Iterator[str]:
    """Pictures and labels that are unpickled, which can run code."""
    for split in run.splits:
        for step in run.transforms(split):
            if step.config.get("decode_backend") == "pickle":
                yield (
                    f"{step.place}.decode_backend='pickle' would run code that is in the files: save them "
                    "with numpy.save, and write decode_backend='numpy'"
                )


DISAGREEMENTS = (class_names, ignored_values, zero_labels, pickled_files)
