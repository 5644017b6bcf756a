"""What is kept stays within its bytes; the longest unused goes first."""

import numpy as np

from danseg.app.kept import Kept


def thing(size: int) -> np.ndarray:
    return np.zeros(size, np.uint8)


def test_the_longest_unused_goes_first():
    kept = Kept(100)
    for name in "abc":
        kept.put((name, 0), thing(30))
    assert kept.get(("a", 0)) is not None
    kept.put(("d", 0), thing(30))
    assert [name for name in "abcd" if kept.get((name, 0))] == ["a", "c", "d"] and kept.size == 90


def test_what_has_grown_is_measured_again():
    kept = Kept(100)
    kept.put(("a", 0), thing(40))
    entry = kept.put(("b", 0), [thing(40)])
    entry.value.append(thing(40))
    assert len(kept) == 2
    kept.measure(entry)
    assert kept.get(("a", 0)) is None and kept.size == 80


def test_the_newest_stays_however_large():
    kept = Kept(10)
    kept.put(("a", 0), thing(5))
    assert kept.put(("b", 0), thing(500)) is kept.get(("b", 0)) and len(kept) == 1


def test_a_picture_is_dropped_with_all_its_networks():
    kept = Kept(100)
    for key in (("a", 0), ("a", 1), ("b", 0)):
        kept.put(key, thing(1))
    kept.drop("a")
    assert len(kept) == 1 and kept.get(("b", 0))
