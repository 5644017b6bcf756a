"""What the options say of classes: ``--classes``, ``--map`` and ``--colours``."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from danseg.dataset_file import Colour, class_names
from danseg.errors import UserError
from danseg.io.source_files import read_lines
from danseg.io.words import did_you_mean, listed
from danseg.label_maps.id_formats import VOID

IGNORE = "ignore"  # in place of a class: pixels that are of none
_BORDER = 0xE0E0C0  # around objects in Pascal VOC's masks, of no class
_SEPARATED = r"[\s,;:=]+"
_NUMBERS = r"(?P<red>\d+)[\s,;]+(?P<green>\d+)[\s,;]+(?P<blue>\d+)"
_LINES = (
    # What may come at the end: the parts and actions of a labelmap.txt.
    re.compile(rf"(?P<name>.*?\S){_SEPARATED}{_NUMBERS}(:.*)?"),
    re.compile(rf"{_NUMBERS}{_SEPARATED}(?P<name>.*\S)"),
)
_HEADER = re.compile(r"\W*(name|class|label|r|red)\b\D*", re.IGNORECASE)


class ColourFile(NamedTuple):
    """What a file of colours says.

    Attributes:
        names: of the classes, in the order of the file.
        colours: the class of each colour, 0xRRGGBB, or 255 where it is of none.
        shown: the first colour of each class.
    """

    names: tuple[str, ...]
    colours: dict[int, int]
    shown: tuple[Colour, ...]


def read_classes(text: str) -> tuple[str, ...]:
    """``--classes``: names with commas between, or a file with a name a line.

    Raises:
        UserError: the file cannot be read, or the names are not right.
    """
    if os.path.isfile(text) or text.endswith((".txt", ".csv", ".names")):
        names = [line.strip() for line in read_lines(text, f"--classes {text}") if line.strip()]
        return class_names(text, names)
    return class_names("--classes", [name.strip() for name in text.split(",")])


def read_map(texts: Sequence[str]) -> dict[str, str]:
    """``--map``: what stands in the labels, and the class that it is.

    Raises:
        UserError: one is not of the form WHAT:CLASS, or something is given two classes.
    """
    found: dict[str, str] = {}
    for text in texts:
        what, colon, name = (part.strip() for part in text.rpartition(":"))
        if not (what and colon and name):
            raise UserError(
                f"--map {text!r} is not ID:CLASS, as 255:1, 255:water or 255:{IGNORE} are; for polygons "
                "LABEL:CLASS"
            )
        if found.get(what, name) != name:
            raise UserError(f"--map gives {what} both {found[what]} and {name}; keep one")
        found[what] = name
    return found


def class_number(name: str, names: Sequence[str], option: str) -> int:
    """The number of a class that an option names, or gives by its number; 255 for ``ignore``.

    Raises:
        UserError: there is no such class.
    """
    if name in names:
        return names.index(name)
    if name == IGNORE:
        return VOID
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    raise UserError(
        f"{option}: {name!r} is no class{did_you_mean(name, names)}; the classes are "
        f"{listed(f'{number} {one}' for number, one in enumerate(names))}, and {IGNORE} for none"
    )


def read_colours(file: str | os.PathLike, names: Sequence[str] | None) -> ColourFile:
    """``--colours``: a line for each colour with a class's name, red, green and blue, in either order.

    A name may have several colours; the name ``ignore`` is for those of no class. Pascal VOC's labelmap.txt
    is of this form too; the colour of VOC's borders is of no class unless the file says otherwise.

    Args:
        file: the file.
        names: of ``--classes``, which give the order; by default, that of the file.

    Raises:
        UserError: the file cannot be read, a line is not of this form, or classes and colours do not agree.
    """
    found: list[tuple[str, int]] = []
    is_labelmap = False
    for number, line in enumerate(read_lines(file, f"--colours {file}"), 1):
        text = line.strip()
        if text.startswith("#") or not text:
            is_labelmap |= "color_rgb" in text
            continue
        match = next((match for form in _LINES if (match := form.fullmatch(text))), None)
        if match is None:
            if not found and _HEADER.fullmatch(text):
                continue
            raise UserError(f"{file}, line {number}: {text!r} is no colour; write name,red,green,blue")
        red, green, blue = (int(match[part]) for part in ("red", "green", "blue"))
        if max(red, green, blue) > 255:
            raise UserError(f"{file}, line {number}: {text!r} has a number beyond 255")
        colour = red << 16 | green << 8 | blue
        earlier = [name for name, other in found if other == colour]
        if earlier and earlier[0] != match["name"]:
            raise UserError(
                f"{file}, line {number}: {match['name']} has the colour of {earlier[0]}, {red} {green} {blue}"
            )
        found.append((match["name"], colour))
    own = list(dict.fromkeys(name for name, _ in found if name != IGNORE))
    if not own:
        raise UserError(f"{file} names no class; write name,red,green,blue in each line")
    if names is not None and set(names) != set(own):
        differ = sorted(set(names) ^ set(own))
        raise UserError(f"{file} and --classes differ in {listed(differ)}; let them name the same classes")
    names = class_names(file, own) if names is None else tuple(names)
    colours = {colour: class_number(name, names, "--colours") for name, colour in found}
    if is_labelmap:
        colours.setdefault(_BORDER, VOID)
    first = [next(colour for name, colour in found if name == one) for one in names]
    shown = tuple((colour >> 16, colour >> 8 & 255, colour & 255) for colour in first)
    return ColourFile(names, colours, shown)
