"""Words for messages: lists, shortened where they are long, numbers of things, and the most similar name."""

import difflib
import textwrap
from collections.abc import Iterable

SHOWN = 5  # how many names a message lists before "and 12 more"


def listed(names: Iterable[object], shown: int = SHOWN) -> str:
    """'a, b, c' in the given order; names beyond the first ``shown`` are counted: 'a, b, c and 12 more'."""
    texts = [str(name) for name in names]
    rest = len(texts) - shown
    return ", ".join(texts[:shown]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, one: str, many: str | None = None) -> str:
    """'1 image' or '3 images': a number of things, whose plural is ``many``, or ``one`` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def shortened(value: object) -> str:
    """A value as Python writes it, in one line of 60 characters at the most."""
    return textwrap.shorten(repr(value), 60, placeholder=" ...")


def ranges(numbers: Iterable[int]) -> str:
    """'0 to 10, 12, 13, 255': the numbers in order, with three or more in a row written as a range."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a} to {b}" for a, b in runs)


def did_you_mean(name: str, known: Iterable[object], cutoff: float = 0.7) -> str:
    """Say '; did you mean x?' with the known name that is most similar; empty if none is similar enough."""
    nearest = difflib.get_close_matches(name, [str(one) for one in known], n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
