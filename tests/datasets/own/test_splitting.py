"""A split depends on what the images hold alone, keeps groups together, and leaves neither side empty."""

import hashlib

import numpy as np
import pytest

from danseg.datasets.own.splitting import check_shares, groups_of, hashes, split
from danseg.errors import UserError

DIGESTS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(40)]


def alone(count):
    return [str(number) for number in range(count)]


def chosen(digests, groups, share):
    train, val = split(digests, groups, dict(val=share)).values()
    assert sorted(train + val) == list(range(len(digests))) and train and val
    return {digests[one] for one in val}


@pytest.mark.parametrize(("share", "count"), [(0.2, 8), (0.5, 20), (0.001, 1), (0.999, 39)])
def test_the_share(share, count):
    assert len(chosen(DIGESTS, alone(40), share)) == count


def test_the_hashes_decide_and_not_names_or_order():
    val = chosen(DIGESTS, alone(40), 0.2)
    assert val == set(sorted(DIGESTS)[:8])
    turned = DIGESTS[::-1]
    assert chosen(turned, [f"renamed {number}" for number in range(40)], 0.2) == val


def test_hashes_are_those_of_the_files(tmp_path):
    (tmp_path / "a").write_bytes(bytes([3]))
    assert hashes([tmp_path / "a"], progress=False) == [DIGESTS[3]]
    with pytest.raises(UserError, match="b cannot be read"):
        hashes([tmp_path / "b"], progress=False)


def test_groups_stay_together():
    groups = [str(number // 5) for number in range(40)]
    val = chosen(DIGESTS, groups, 0.25)
    assert len(val) == 10
    sides = [{DIGESTS[number] in val for number in range(5 * group, 5 * group + 5)} for group in range(8)]
    assert all(len(side) == 1 for side in sides)


def test_copies_stay_together_and_tie_their_groups():
    digests = [*DIGESTS[:6], DIGESTS[0], DIGESTS[5]]
    # 0 and 6 are copies, and so are 5 and 7; 6 and 7 are of one scene, so that all four stay together.
    groups = [*alone(6), "scene", "scene"]
    for share in (0.1, 0.3, 0.5, 0.7):
        train = split(digests, groups, dict(val=share))["train"]
        assert len({one in train for one in (0, 5, 6, 7)}) == 1


def test_large_groups_leave_both_sides_something():
    groups = ["a"] * 39 + ["b"]
    for share in (0.2, 0.8):
        assert len(chosen(DIGESTS, groups, share)) in (1, 39)


@pytest.mark.parametrize(("digests", "groups"), [(DIGESTS[:1], ["a"]), (DIGESTS, ["a"] * 40)])
def test_one_group_cannot_be_split(digests, groups):
    with pytest.raises(UserError, match="cannot be split into train and val"):
        split(digests, groups, dict(val=0.2))


def test_patterns():
    names = ["video_01/a.png", "video_02/a.png", "video_01/b.png"]
    assert groups_of(names, None) == names
    assert groups_of(names, r"video_\d+") == ["video_01", "video_02", "video_01"]
    assert groups_of(names, r"video_(\d+)/") == ["01", "02", "01"]
    with pytest.raises(UserError, match="matches nothing in 1 names of images: video_02/a.png"):
        groups_of(names, "_01")
    with pytest.raises(UserError, match="is no regular expression"):
        groups_of(names, "(")


@pytest.mark.parametrize("share", [0, 1, -0.5, 2, float("nan")])
def test_no_share(share):
    with pytest.raises(UserError, match="is no share between 0 and 1"):
        check_shares(share, None)
    with pytest.raises(UserError, match=f"--test {share:g} is no share between 0 and 1"):
        check_shares(0.2, share)


def test_shares_that_leave_nothing():
    with pytest.raises(UserError, match=r"--val 0.5 and --test 0.5 leave no images to train on"):
        check_shares(0.5, 0.5)


def test_three_splits_of_their_shares():
    splits = split(DIGESTS, alone(40), dict(val=0.2, test=0.1))
    assert [len(ones) for ones in splits.values()] == [28, 8, 4] and list(splits) == ["train", "val", "test"]
    assert sorted(one for ones in splits.values() for one in ones) == list(range(40))
    with pytest.raises(UserError, match="2 images are of 2 groups, .* split into train and val and test"):
        split(DIGESTS[:2], alone(2), dict(val=0.2, test=0.1))


def test_classes_that_several_images_show_are_in_every_split():
    """Whatever the hashes: each split of each of many sets shows what it can."""
    for seed in range(60):
        random = np.random.default_rng(seed)
        digests = [hashlib.sha256(bytes([seed, number])).hexdigest() for number in range(30)]
        classes = [
            set(random.choice(9, 2, p=[0.4, 0.3, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01])) for _ in digests
        ]
        shares = dict(val=0.2) if seed % 2 else dict(val=0.2, test=0.1)
        splits = split(digests, alone(30), shares, classes)
        assert all(abs(len(splits[name]) - 30 * share) <= 1 for name, share in shares.items())
        for one in range(9):
            holders = [name for name, ones in splits.items() if any(one in classes[place] for place in ones)]
            images = sum(one in each for each in classes)
            assert holders == list(splits)[:images], (seed, one, images)
        turned = split(digests[::-1], alone(30), shares, classes[::-1])
        assert {name: sorted(29 - place for place in ones) for name, ones in turned.items()} == splits


def test_a_class_of_one_group_is_trained_on_and_the_share_is_kept():
    first = min(range(40), key=DIGESTS.__getitem__)  # which the hashes choose to validate
    classes = [{0, 1} if number == first else {0} for number in range(40)]
    val = split(DIGESTS, alone(40), dict(val=0.2), classes)["val"]
    assert first not in val and len(val) == 8
    assert len({DIGESTS[number] for number in val} & set(sorted(DIGESTS)[:8])) == 7


def test_sets_whose_classes_are_everywhere_are_split_by_the_hashes_alone():
    classes = [{0, 1}] * 40
    assert split(DIGESTS, alone(40), dict(val=0.2), classes) == split(DIGESTS, alone(40), dict(val=0.2))
