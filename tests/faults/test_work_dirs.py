"""The campaign's judge of a work dir finds each untruth."""

import dataclasses

import pytest
import torch

from campaign_kills import _lost
from outcome import faults_of
from work_dirs import Ending

TRUE = Ending(
    said_best=("best_mIoU_iter_4.pth", "1.5"),
    note="iter_6.pth",
    files=["best_mIoU_iter_4.pth", "iter_5.pth", "iter_6.pth"],
    leftovers=[],
    best={"best_mIoU_iter_4.pth": 1.5},
    scores={2: 1.0, 4: 1.5, 6: 1.25},
    weights={"iter_6.pth": {"weight": torch.ones(2)}},
)


def test_what_is_true_is_not_accused():
    assert TRUE.untrue(6, interval=2) == [] == TRUE.unlike(TRUE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(note="iter_5.pth"), "last checkpoint iter_5.pth"),
        (dict(leftovers=[".iter_6.pth.1-a.part"]), "leftovers: .iter_6"),
        (dict(files=["iter_4.pth", "iter_5.pth", "iter_6.pth"]), "leftovers: iter_4"),
        (dict(scores={2: 1.0, 4: 1.5}), "never validated: [6]"),
        (dict(scores={2: 1.0, 4: 1.5, 6: 1.75}), "best checkpoints"),
        (dict(best={"best_mIoU_iter_4.pth": 1.5, "best_mIoU_iter_2.pth": 1.0}), "best checkpoints"),
        (dict(best={}), "best checkpoints"),
        (dict(said_best=("best_mIoU_iter_4.pth", "1.6")), "calls"),
    ],
)
def test_each_untruth_is_named(change, words):
    found = dataclasses.replace(TRUE, **change).untrue(6, interval=2)
    assert len(found) == 1 and words in found[0]


def test_other_weights_or_scores_are_not_the_same_training():
    other = {"iter_6.pth": {"weight": torch.tensor([1.0, 1.0000001])}}
    assert "1 of 1 weights differ" in dataclasses.replace(TRUE, weights=other).unlike(TRUE)[0]
    statistics = {"iter_6.pth": {"weight": torch.ones(2), "bn.running_mean": torch.ones(2)}}
    ours, theirs = (dataclasses.replace(TRUE, weights=weights) for weights in (TRUE.weights, statistics))
    assert ours.unlike(theirs) and not ours.unlike(theirs, statistics=False)
    assert "scores" in dataclasses.replace(TRUE, scores={2: 1.0, 4: 1.5, 6: 1.3}).unlike(TRUE)[0]


@pytest.mark.parametrize(
    ("logged", "before", "after", "lost"),
    [
        ((3, 4), 2, 4, 0),
        ((3, 4), 2, 3, 0),
        ((1, 2), 2, 2, 2),
        ((3, 4, 5), 2, 2, 2),
        ((), 4, 4, 0),
        ((), 4, 1, 3),
    ],
)
def test_lost_iterations_are_counted(logged, before, after, lost):
    text = "".join(f"Iter(train) [ {one}/12]  loss: 1\n" for one in logged)
    wrong: list[str] = []
    assert _lost(text, before, after, wrong) == lost
    assert bool(wrong) == bool(lost)


@pytest.mark.parametrize(
    ("text", "status", "found"),
    [
        ("error: no such file", 1, []),
        ("done", 0, []),
        ("", 1, ["status 1 without a message"]),
        ("", None, ["hang"]),
        ("", -11, ["status -11"]),
        ("Traceback (most recent call last):\nerror: KeyError", 1, ["internal stack (error: KeyError)"]),
    ],
)
def test_how_a_command_ended_is_judged(text, status, found):
    assert faults_of(text, status) == found
