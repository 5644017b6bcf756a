"""What the labels of a set hold: the classes of their ids, colours or regions, and how to get at them."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from danseg.datasets.own.annotation_forms import Form
from danseg.datasets.own.class_options import IGNORE, ColourFile
from danseg.datasets.own.label_table import (
    LabelTable,
    Occurrences,
    table_of_colours,
    table_of_ids,
    table_of_labels,
)
from danseg.datasets.own.mask_values import MOST, MaskValues, RefusedMask, look_at, read_colours, read_ids
from danseg.datasets.own.pairing import Label
from danseg.datasets.own.rasterising import Annotated, rasterised
from danseg.errors import UserError
from danseg.io.parallel import parallel_map
from danseg.io.words import listed
from danseg.label_maps.id_formats import VOID


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user said of classes: names, ``--map``, ``--colours`` and ``--outside``."""

    names: Sequence[str] | None
    remap: Mapping[str, str]
    colours: ColourFile | None
    outside: str


@dataclasses.dataclass(frozen=True)
class LabelContents:
    """What the labels hold.

    Attributes:
        table: the class of each id, colour or label.
        sizes: height and width of each label.
        shown: the classes that each label shows.
        classes_of: reads or draws the classes of a label, (H, W) uint8; None if training reads the files.
        what: they are, in words.
        notes: what the user should know.
    """

    table: LabelTable
    sizes: list[tuple[int, int]]
    shown: list[frozenset[int]]
    classes_of: Callable[..., np.ndarray] | None
    what: str
    notes: list[str]


def contents_of(form: Form, labels: Sequence[Label], options: Options, progress: bool) -> LabelContents:
    """What labels of a form hold.

    Raises:
        UserError: a mask is of no use, or something in the labels is no class.
    """
    if form.annotated is not None:
        return _regions(form, [one for one in labels if isinstance(one, Annotated)], options)
    return _masks([one for one in labels if isinstance(one, Path)], options, form.name, progress)


def _regions(form: Form, labels: Sequence[Annotated], options: Options) -> LabelContents:
    found = Occurrences()
    for one in labels:
        found.add(Counter(region.label for region in one.regions), one.source)
    table = table_of_labels(found, form.order, options.names, options.remap, options.colours, options.outside)
    outside = VOID if options.outside == IGNORE else table.names.index(options.outside)
    told = "of no class (ignored)" if outside == VOID else f"of the class {options.outside!r}"
    return LabelContents(
        table,
        [one.size for one in labels],
        [_classes([outside, *(table.table[region.label] for region in one.regions)]) for one in labels],
        lambda one: rasterised(one, table.table, outside),
        f"polygons in {form.name} form, drawn as masks",
        [f"pixels outside of all polygons are {told}; --outside sets this"],
    )


def _masks(labels: Sequence[Path], options: Options, form: str, progress: bool) -> LabelContents:
    looks = parallel_map(_look, labels, description="Looking at masks", progress=progress)
    refused = [one for one in looks if isinstance(one, RefusedMask)]
    if refused:
        alike = [one for one in refused if one.reason == refused[0].reason]
        more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
        raise UserError(f"{refused[0]}{more}")
    values = [one for one in looks if isinstance(one, MaskValues)]
    sizes = [one.size for one in values]
    ids, shown = Occurrences(), Occurrences()
    for path, one in zip(labels, values, strict=True):
        ids.add(one.ids or {}, str(path))
        shown.add(one.colours, str(path))
    by_colour = options.colours is not None and set(shown.counts) <= set(options.colours.colours)
    if by_colour or any(one.ids is None for one in values):
        if options.remap:
            raise UserError(
                "--map is for ids, and these masks hold colours: several lines of --colours may have one name"
            )
        table = table_of_colours(shown, options.colours)
        return LabelContents(
            table,
            sizes,
            [_classes(table.table[colour] for colour in one.colours) for one in values],
            _by_colours(table.table),
            f"masks of colours{form}, written as class ids",
            [],
        )
    table = table_of_ids(ids, options.names, options.remap, options.colours)
    classes = [_classes(table.table[number] for number in one.ids or ()) for one in values]
    absent = [one for one in options.remap if int(one) not in ids.counts]
    notes = [f"ids of --map that no mask holds: {listed(absent)}"] if absent else []
    if all(one.plain for one in values) and max(table.table) < 256:
        return LabelContents(table, sizes, classes, None, f"masks of ids{form}, read where they are", notes)
    lookup = np.full(MOST, VOID, np.uint8)
    lookup[list(table.table)] = list(table.table.values())
    told = f"masks of ids{form}, written with 8 bits"
    return LabelContents(table, sizes, classes, lambda path: lookup[read_ids(path)], told, notes)


def _classes(numbers: Iterable[int]) -> frozenset[int]:
    return frozenset(numbers) - {VOID}


def _look(path: Path) -> MaskValues | RefusedMask:
    try:
        return look_at(path)
    except RefusedMask as error:
        return error


def _by_colours(table: Mapping[int, int]) -> Callable[[Path], np.ndarray]:
    colours = np.array(sorted(table))
    classes = np.array([table[one] for one in sorted(table)], np.uint8)
    return lambda path: classes[np.searchsorted(colours, read_colours(path))]
