"""Lists in messages."""

import pytest

from danseg.io.words import counted, did_you_mean, listed, ranges, shortened


def test_a_long_list_is_cut_and_counted():
    assert listed("abc") == "a, b, c"
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"
    assert listed([1, 2, 3], shown=1) == "1 and 2 more"
    assert listed([]) == ""


def test_one_thing_is_not_called_several():
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(1, "class has", "classes have") == "1 class has"
    assert counted(2, "class has", "classes have") == "2 classes have"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([], ""),
        ([3], "3"),
        ([4, 3], "3, 4"),
        ([0, 1, 2, 9], "0 to 2, 9"),
        ({7, 8, 11, 12, 13}, "7, 8, 11 to 13"),
    ],
)
def test_runs_of_numbers_are_drawn_together(numbers, words):
    assert ranges(numbers) == words


def test_the_most_similar_name_is_suggested():
    assert did_you_mean("pam_chanels", ["channels", "pam_channels"]) == "; did you mean 'pam_channels'?"
    assert did_you_mean("x", ["channels"]) == did_you_mean("x", []) == ""
    assert did_you_mean("SDG", ["SGD"]) == "" and "SGD" in did_you_mean("SDG", ["SGD"], cutoff=0.6)


def test_a_long_value_is_cut_to_one_line():
    assert shortened({"a": "b c"}) == "{'a': 'b c'}"
    cut = shortened(list(range(100)))
    assert cut.startswith("[0, 1, 2,") and cut.endswith(" ...") and len(cut) <= 60
