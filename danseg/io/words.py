"""Write lists in messages: shorten long ones, and join runs of numbers to ranges."""

from collections.abc import Iterable

SHOWN = 5  # how many names a message lists before "and 12 more"


def listed(names: Iterable[object], shown: int = SHOWN) -> str:
    """'a, b, c' in the given order; names beyond the first ``shown`` are counted: 'a, b, c and 12 more'."""
    texts = [str(name) for name in names]
    rest = len(texts) - shown
    return ", ".join(texts[:shown]) + (f" and {rest} more" if rest > 0 else "")


def ranges(numbers: Iterable[int]) -> str:
    """'0 to 10, 12, 13, 255': the numbers in order, with three or more in a row written as a range."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a} to {b}" for a, b in runs)
