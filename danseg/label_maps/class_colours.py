"""Colours for classes that have none: those of Pascal VOC's colour map."""

from collections.abc import Sequence

_NO_THING = ("background", "_background_", "other", "void")


def voc_colour(number: int) -> tuple[int, int, int]:
    """Red, green and blue of a number, 0 to 255, in Pascal VOC's colour map.

    The number's bits 0, 3, 6 make red's bits 7, 6, 5; bits 1, 4, 7 make green's, bits 2, 5 blue's.
    """
    red, green, blue = (
        sum((number >> (3 * level + channel) & 1) << (7 - level) for level in range(3))
        for channel in range(3)
    )
    return red, green, blue


def default_colours(names: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """A colour of its own for each of up to 255 classes; a first class called background is black."""
    first = 0 if names and names[0].lower() in _NO_THING else 1
    return tuple(voc_colour(first + number) for number in range(len(names)))
