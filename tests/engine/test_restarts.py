"""Runs that a launcher starts again by itself."""

import pytest

from danseg.engine.restarts import restarted_by
from danseg.engine.train import train


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [
        ({}, None),
        ({"TORCHELASTIC_RESTART_COUNT": "0"}, None),
        ({"TORCHELASTIC_RESTART_COUNT": "2"}, "torchrun"),
        ({"SLURM_RESTART_COUNT": "10"}, "Slurm"),
    ],
)
def test_a_start_after_the_first_is_known(monkeypatch, variables, launcher):
    for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert restarted_by() == launcher


@pytest.mark.slow
def test_it_goes_on_whatever_the_first_start_was_asked(tiny, tmp_path, monkeypatch):
    train(tiny({"train_cfg.max_iters": 2}), log=lambda message: None)
    (tmp_path / "work").rename(tmp_path / "other")
    other = tmp_path / "other" / "iter_2.pth"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    said = []
    # There is nothing to go on from, so it is as at the first start.
    runner = train(tiny({"train_cfg.max_iters": 3}), resume=str(other), log=said.append)
    assert runner.weights == str(other)
    assert "torchrun has started this training again: it goes on from its newest checkpoint" in said
    runner = train(tiny(), resume=str(other), log=said.append)
    assert runner.weights == str(tmp_path / "work" / "iter_3.pth") and runner.iter == 4
