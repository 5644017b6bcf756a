"""A few trials, and how all of them are counted; ``make faults`` makes the others."""

import json
import sys
from argparse import Namespace

import pytest

from campaign_mutated import TARGETS
from carrying_out import CAMPAIGNS, Row, all_faults, carry_out, run_trial, save
from outcome import Fault, Outcome
from shared import Shared

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
FAULTS = {fault.name: fault for fault in all_faults()}
# Trials that show much in little time; by fault, the numbers.
QUICK = {
    # one target each: training image, picture, checkpoint, prediction
    "mutated inputs": [0, 6, 41, 14],
    "code in files": [0, 3, 7],
    "file size limit in training": [0],
    "kill -9 at each file operation": [46],  # while the third checkpoint is written
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return Shared(tmp_path_factory.mktemp("shared"))


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in QUICK for number in QUICK[name]])
def test_a_trial_survives(name, number, shared, tmp_path):
    outcome = run_trial(FAULTS[name], number, seed=0, folder=tmp_path / "trial", shared=shared)
    assert outcome.wrong == [] and outcome.lost == 0


def test_the_issue_of_each_fault_is_counted():
    assert len(CAMPAIGNS) > 4 and len(FAULTS) == len(all_faults())
    kills = sum(FAULTS[name].tries for name in FAULTS if name.startswith("kill -9,"))
    assert kills >= 200 and FAULTS["mutated inputs"].tries >= 1000
    assert FAULTS["SIGTERM"].tries >= 50 and FAULTS["two processes, no fault"].tries >= 50
    assert FAULTS["two trainings in one folder"].tries >= 20
    assert {"picture", "picture by tiles", "config", "prediction", "tested checkpoint"} <= TARGETS.keys()


def test_rows_count_and_name(tmp_path):
    row = Row("some")
    row.add(0, Outcome("resumed", tries=4))
    row.add(1, Outcome("resumed", ["a: hang", "a: internal stack (KeyError)"], lost=2, tries=4))
    row.add(2, Outcome("refused"))
    assert (row.tries, row.survived, row.lost) == (9, 7, 2)
    assert row.kinds == {"resumed": 8, "refused": 1}
    assert row.count("hang") == row.count("internal stack") == 1
    args = Namespace(seed=0, out=tmp_path, only=["some"], tries=None, number=None, seconds=None)
    assert (
        json.loads(save([row], args).read_text())["rows"][0]["wrong"] == row.wrong
        and row.wrong[0] == "1: a: hang"
    )


def test_a_trial_that_cannot_be_made_did_not_survive(tmp_path):
    def broken(place):
        raise RuntimeError("no disk to fill")

    outcome = run_trial(Fault("broken", 1, broken), 0, 0, tmp_path / "trial", Shared(tmp_path))
    assert "no disk to fill" in outcome.wrong[0] and not (tmp_path / "trial").exists()


def test_an_unknown_fault_is_named(capsys):
    assert carry_out(Namespace(only=["nothing"])) == 2
    assert "no fault is named nothing; there are 'code in files'" in capsys.readouterr().out
