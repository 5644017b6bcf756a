"""Runs that a launcher starts again by itself."""

import pytest

from danseg.engine.restarts import note_launch, restarted_by
from danseg.engine.train import train
from danseg.errors import UserError

TORCHRUN = "TORCHELASTIC_RESTART_COUNT"
LENGTH = "train_cfg.max_iters"


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in (TORCHRUN, "SLURM_RESTART_COUNT", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("first", "again", "launcher"),
    [
        ({}, {}, None),
        ({TORCHRUN: "0"}, {TORCHRUN: "0"}, None),
        ({TORCHRUN: "0"}, {TORCHRUN: "2"}, "torchrun"),
        ({}, {TORCHRUN: "2"}, None),
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "10"}, "Slurm"),
        ({"SLURM_JOB_ID": "6"}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "10"}, None),
    ],
)
def test_a_later_start_of_the_same_launch_is_known(monkeypatch, tmp_path, first, again, launcher):
    for variables in (first, again):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        if variables is first:
            note_launch(tmp_path)
    assert restarted_by(tmp_path) == launcher


@pytest.mark.slow
def test_it_goes_on_whatever_the_first_start_was_asked(tiny, tmp_path, monkeypatch):
    train(tiny({LENGTH: 2}), log=lambda message: None)
    (tmp_path / "work").rename(tmp_path / "other")
    other = tmp_path / "other" / "iter_2.pth"
    said = []
    monkeypatch.setenv(TORCHRUN, "0")
    assert train(tiny({LENGTH: 3}), resume=str(other), log=said.append).weights == str(other)
    assert not [one for one in said if "torchrun" in one]
    monkeypatch.setenv(TORCHRUN, "1")
    runner = train(tiny(), resume=str(other), log=said.append)
    assert "torchrun has started this training again: it goes on from its newest checkpoint" in said
    assert runner.weights == str(tmp_path / "work" / "iter_3.pth") and runner.iter == 4


def test_it_does_not_go_on_with_an_earlier_training(tiny, tmp_path, monkeypatch):
    """The first start was refused, or ended before it had begun."""
    train(tiny({LENGTH: 2}), log=lambda message: None)
    for count in "01":
        monkeypatch.setenv(TORCHRUN, count)
        with pytest.raises(UserError, match="holds the checkpoints of an earlier training"):
            train(tiny(), log=lambda message: None)
