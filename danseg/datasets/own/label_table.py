"""Which class each thing that stands in the labels is: an id, a colour, or a polygon's label."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from danseg.dataset_file import Colour, class_names
from danseg.datasets.own.class_options import IGNORE, ColourFile, class_number
from danseg.datasets.own.mask_values import MOST, hexadecimal
from danseg.errors import UserError
from danseg.io.words import counted, listed, ranges
from danseg.label_maps.class_colours import default_colours
from danseg.label_maps.id_formats import VOID

_MOST_UNNAMED = 200  # classes; more have to be named


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """Classes, and what stands for them in the labels.

    Attributes:
        names: of the classes.
        colours: to show them in.
        table: the class of each id, colour or label; 255 where it is of none.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    table: dict


@dataclasses.dataclass
class Occurrences:
    """Where each id, colour or label occurs: its pixels or pieces, and the first files."""

    counts: Counter = dataclasses.field(default_factory=Counter)
    files: Counter = dataclasses.field(default_factory=Counter)
    first: dict = dataclasses.field(default_factory=dict)

    def add(self, counts: Mapping, file: str) -> None:
        self.counts.update(counts)
        self.files.update(counts.keys())
        for one in counts:
            self.first.setdefault(one, file)

    def told(self, ones: Iterable, word: str, written: object = str) -> str:
        """'7 (120 pixels in 3 files, such as a.png)', the most frequent first; ``word`` is 'pixel'."""
        ranked = sorted(ones, key=lambda one: -self.counts[one])
        return listed(
            f"{written(one) if callable(written) else one} ({counted(self.counts[one], word)} in "
            f"{counted(self.files[one], 'file')}, such as {self.first[one]})"
            for one in ranked
        )


def table_of_ids(
    found: Occurrences, names: Sequence[str] | None, remap: Mapping[str, str], colours: ColourFile | None
) -> LabelTable:
    """Ids are the classes of the same number, and 255 is none, unless ``remap`` says otherwise.

    Args:
        found: the ids in the masks.
        names: of the classes; without any, "class 0" and so on up to the highest.
        remap: of ``--map``.
        colours: to show the classes in.

    Raises:
        UserError: an id is of no class, or there are no two classes.
    """
    for one in remap:
        if not (one.isdecimal() and int(one) < MOST):
            raise UserError(f"--map {one}:{remap[one]}: {one!r} is no id from 0 to {MOST - 1}, as masks hold")
    if names is None:
        kept = {one for one in found.counts if str(one) not in remap and one != VOID}
        given = {int(name) for name in remap.values() if name.isdecimal()}
        highest = max(kept | given, default=0)
        if highest >= _MOST_UNNAMED or len(kept | given) < highest / 2:
            # Ids with wide gaps, or many: likelier instances, or shades of grey, than classes.
            raise UserError(
                f"the masks hold the ids {ranges(found.counts)}, which are not the numbers of classes from 0 "
                f"on; say what they mean, as in --classes land,water --map {highest}:1"
            )
        names = [f"class {number}" for number in range(highest + 1)]
    table = {one: one for one in range(len(names))} | {VOID: VOID}
    table |= {int(one): class_number(name, names, f"--map {one}:{name}") for one, name in remap.items()}
    without = [name for number, name in enumerate(names) if number not in table.values()]
    if without:
        raise UserError(
            f"--map leaves no id for {listed(map(repr, without))}; give each class one, or leave it out of "
            "--classes"
        )
    unknown = [one for one in found.counts if one not in table]
    if unknown:
        raise UserError(
            f"ids in the masks that are no class: {found.told(unknown, 'pixel')}. The {len(names)} classes "
            f"are 0 to {len(names) - 1}, and 255 is none; name more classes, or give the id one, as in --map "
            f"{unknown[0]}:{len(names) - 1} or --map {unknown[0]}:{IGNORE}"
        )
    if set(found.counts) == {0, VOID} and str(VOID) not in remap:
        raise UserError(
            "the masks hold 0 and 255 alone, and 255 is read as no class; if it is one, give --map 255:1"
        )
    # An id that does not occur has no meaning of its own where another stands for its class.
    told = set(found.counts) | {int(one) for one in remap}
    meant = {table[one] for one in told}
    table = {one: number for one, number in table.items() if one in told | {VOID} or number not in meant}
    return LabelTable(tuple(names), colours.shown if colours else default_colours(names), table)


def table_of_colours(found: Occurrences, colours: ColourFile | None) -> LabelTable:
    """The classes of a file of colours.

    Raises:
        UserError: there is no such file, or it lacks a colour of the masks.
    """
    if colours is None:
        said = found.told(found.counts, "pixel", hexadecimal)
        raise UserError(
            f"the masks hold {counted(len(found.counts), 'colour')}: {said}. Give --colours FILE with a line "
            "name,red,green,blue for each class"
        )
    unknown = [one for one in found.counts if one not in colours.colours]
    if unknown:
        many = "; so many come from smoothed edges or lossy files: export again" if len(unknown) > 255 else ""
        raise UserError(
            f"{counted(len(unknown), 'colour of the masks is', 'colours of the masks are')} not in "
            "--colours: "
            f"{found.told(unknown, 'pixel', hexadecimal)}{many}. Add lines name,red,green,blue, with "
            f"{IGNORE} as the name where pixels are of no class"
        )
    return LabelTable(colours.names, colours.shown, dict(colours.colours))


def table_of_labels(
    found: Occurrences,
    order: Sequence[str],
    names: Sequence[str] | None,
    remap: Mapping[str, str],
    colours: ColourFile | None,
    outside: str,
) -> LabelTable:
    """The labels of polygons are classes of their name; ``remap`` gives them another.

    Args:
        found: the labels of the polygons.
        order: labels in the order that their classes get, if no names are given; further ones by alphabet.
        names: of the classes. Without any, ``outside`` is the first class.
        remap: of ``--map``.
        colours: to show the classes in.
        outside: the class of pixels outside of all polygons, or ``ignore``.

    Raises:
        UserError: a label is of no class, or the class outside is none.
    """
    strangers = [one for one in remap if one not in found.counts and one not in order]
    if strangers:
        raise UserError(
            f"--map names the labels {listed(strangers)}; there are {listed(sorted(found.counts))}"
        )
    if names is None:
        labels = [*dict.fromkeys((*order, *sorted(found.counts)))]
        own = [remap.get(one, one) for one in labels]
        first = [] if outside == IGNORE else [outside]
        names = class_names(
            "labels of polygons", [one for one in dict.fromkeys((*first, *own)) if one != IGNORE]
        )
    if outside not in (*names, IGNORE):
        raise UserError(
            f"pixels outside of all polygons are of the class {outside!r}, which is none of {listed(names)}; "
            f"add it, or name one of these by --outside, or --outside {IGNORE}"
        )
    table = {one: class_number(name, names, f"--map {one}:{name}") for one, name in remap.items()}
    table = {name: number for number, name in enumerate(names)} | table
    unknown = [one for one in found.counts if one not in table]
    if unknown:
        raise UserError(
            f"labels of polygons that are no class: {found.told(unknown, 'polygon', repr)}. The classes are "
            f"{listed(names)}; add them, or give --map {unknown[0]!r}:CLASS or --map {unknown[0]!r}:{IGNORE}"
        )
    return LabelTable(tuple(names), colours.shown if colours else default_colours(names), table)
