"""What stands in the labels gets its class, or is named with where it occurs and what to say."""

import pytest

from danseg.datasets.own.class_options import ColourFile
from danseg.datasets.own.label_table import Occurrences, table_of_colours, table_of_ids, table_of_labels
from danseg.errors import UserError


def occurring(*files):
    found = Occurrences()
    for number, counts in enumerate(files):
        found.add(counts, f"{number}.png")
    return found


COLOURS = ColourFile(("a", "b"), {0x010203: 0, 0x040506: 1, 0: 255}, ((1, 2, 3), (4, 5, 6)))


@pytest.mark.parametrize(
    ("ids", "names", "remap", "table"),
    [
        ((0, 1, 255), ("a", "b"), {}, {0: 0, 1: 1, 255: 255}),
        ((0, 255), ("a", "b"), {"255": "1"}, {0: 0, 255: 1}),  # 1 occurs nowhere and means nothing
        ((0, 1, 255), ("a", "b"), {"255": "b"}, {0: 0, 1: 1, 255: 1}),
        ((0, 1), ("a", "b", "c"), {}, {0: 0, 1: 1, 2: 2, 255: 255}),  # c may come
        ((1, 2), ("a", "b"), {"1": "a", "2": "b"}, {1: 0, 2: 1, 255: 255}),
        ((0, 1, 2), ("a", "b"), {"0": "ignore", "1": "0", "2": "1"}, {0: 255, 1: 0, 2: 1, 255: 255}),
        ((0, 1, 1000), ("a", "b"), {"1000": "ignore"}, {0: 0, 1: 1, 1000: 255, 255: 255}),
    ],
)
def test_ids(ids, names, remap, table):
    found = table_of_ids(occurring(dict.fromkeys(ids, 1)), names, remap, None)
    assert (found.names, found.table) == (names, table)


def test_names_for_ids_that_have_none():
    assert table_of_ids(occurring({0: 1, 2: 1, 255: 1}), None, {}, None).names == (
        "class 0",
        "class 1",
        "class 2",
    )
    assert table_of_ids(occurring({0: 1, 255: 1}), None, {"255": "1"}, None).names == ("class 0", "class 1")
    with pytest.raises(UserError, match="hold the ids 0, 200, which are not the numbers of classes"):
        table_of_ids(occurring({0: 1, 200: 1}), None, {}, None)
    with pytest.raises(UserError, match="hold the ids 0 to 255, which are not"):  # shades of grey
        table_of_ids(occurring(dict.fromkeys(range(256), 1)), None, {}, None)


@pytest.mark.parametrize(
    ("ids", "remap", "said"),
    [
        ((0, 255), {}, "hold 0 and 255 alone, and 255 is read as no class; if it is one, give --map 255:1"),
        ((0, 7), {}, r"no class: 7 \(1 pixel in 1 file, such as 0.png\). The 2 classes are 0 to 1"),
        ((0, 1), {"1": "a"}, "--map leaves no id for 'b'; give each class one"),
        ((0, 1), {"x": "1"}, "'x' is no id from 0 to 65535"),
        ((0, 1), {"70000": "1"}, "'70000' is no id"),
        ((0, 1), {"1": "2"}, "--map 1:2: '2' is no class"),
    ],
)
def test_wrong_ids(ids, remap, said):
    with pytest.raises(UserError, match=said):
        table_of_ids(occurring(dict.fromkeys(ids, 1)), ("a", "b"), remap, None)


def test_the_most_frequent_come_first_with_their_files():
    with pytest.raises(
        UserError, match=r"9 \(50 pixels in 2 files, such as 0.png\), 8 \(5 pixels in 1 file, such as 1"
    ):
        table_of_ids(occurring({0: 5, 9: 20}, {9: 30, 8: 5}), ("a",), {}, None)


def test_colours():
    found = table_of_colours(occurring({0x010203: 5, 0: 1}), COLOURS)
    assert (found.names, found.colours) == (("a", "b"), ((1, 2, 3), (4, 5, 6)))
    assert found.table == {0x010203: 0, 0x040506: 1, 0: 255}
    with pytest.raises(
        UserError, match=r"1 colour of the masks is not in --colours: 9 8 7 \(4 pixels in 1 file,"
    ):
        table_of_colours(occurring({0x010203: 5, 0x090807: 4}), COLOURS)
    with pytest.raises(UserError, match="300 colours .* so many come from smoothed edges"):
        table_of_colours(occurring(dict.fromkeys(range(1, 301), 1)), COLOURS)
    with pytest.raises(UserError, match=r"hold 1 colour: 9 8 7 .*Give --colours FILE"):
        table_of_colours(occurring({0x090807: 4}), None)


LABELS = {"dog": 3, "cat": 2, "tree": 1}


@pytest.mark.parametrize(
    ("order", "names", "remap", "outside", "expected", "table"),
    [
        ((), None, {}, "background", "background,cat,dog,tree", dict(cat=1, dog=2, tree=3)),
        (("dog", "cat"), None, {}, "background", "background,dog,cat,tree", dict(dog=1, cat=2, tree=3)),
        ((), None, {}, "ignore", "cat,dog,tree", dict(cat=0, dog=1, tree=2)),
        ((), None, {}, "tree", "tree,cat,dog", dict(cat=1, dog=2, tree=0)),
        ((), None, dict(dog="pet", cat="pet"), "ignore", "pet,tree", dict(cat=0, dog=0, tree=1)),
        ((), None, dict(dog="ignore"), "ignore", "cat,tree", dict(cat=0, dog=255, tree=1)),
        ((), ["x", "tree"], dict(dog="0", cat="x"), "x", "x,tree", dict(cat=0, dog=0, tree=1)),
    ],
)
def test_labels(order, names, remap, outside, expected, table):
    found = table_of_labels(occurring(LABELS), order, names, remap, None, outside)
    assert found.names == tuple(expected.split(","))
    assert {label: found.table[label] for label in LABELS} == table


def test_labels_that_are_no_names():
    for labels, said in (
        ("a\nb", "name of class 1 is"),
        ("dog ", "labels of polygons: names holds 'dog' twice"),
    ):
        with pytest.raises(UserError, match=said):
            table_of_labels(occurring({labels: 1, "dog": 1}), (), None, {}, None, "background")


@pytest.mark.parametrize(
    ("names", "remap", "outside", "said"),
    [
        (["cat", "dog", "tree"], {}, "sky", "of the class 'sky', which is none of "),
        (["cat", "dog"], {}, "cat", r"no class: 'tree' \(1 polygon in 1 file, such as 0.png\)"),
        (None, {"bird": "cat"}, "ignore", "--map names the labels bird; there are cat, dog, tree"),
    ],
)
def test_wrong_labels(names, remap, outside, said):
    with pytest.raises(UserError, match=said):
        table_of_labels(occurring(LABELS), (), names, remap, None, outside)
