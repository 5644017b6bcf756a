"""A signal stops a training after an iteration, with a checkpoint from which it goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from child_process import ROOT, environment
from danseg.engine import train as train_module
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.hooks import SafeCheckpointHook, StopSignalsHook
from danseg.engine.received_signals import SIGNALS
from danseg.engine.train import train
from danseg.errors import command_line
from equal_nests import equal

TINY = ROOT / "tests" / "engine" / "tiny.py"


@HOOKS.register_module()
class Kills(Hook):
    """Sends this process signals at a point of the hooks: where the iteration or batch has this number."""

    def __init__(self, point: str, number: int, names: list[str]) -> None:
        self.number, self.names = number, names
        setattr(self, point, self.kill)

    def kill(self, runner, batch_idx=None, data_batch=None, checkpoint=None) -> None:
        if (runner.iter if batch_idx is None else batch_idx) == self.number:
            for name in self.names:
                os.kill(os.getpid(), signal.Signals[name])

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        runner.message_hub.update_info("batches", batch_idx + 1)


@pytest.fixture(autouse=True)
def plain_texts(monkeypatch):
    monkeypatch.setattr(Config, "pretty_text", property(lambda config: ""))


@pytest.fixture
def stopped(tiny, tmp_path, monkeypatch):
    """Train a config that sends itself signals: its status at the end, its log, and its runner."""
    runners = []
    make = train_module._runner
    monkeypatch.setattr(train_module, "_runner", lambda *given: runners.append(make(*given)) or runners[-1])

    def run(point, number, names, options=None, text="", hooks=()):
        kills = dict(type="Kills", point=point, number=number, names=names)
        options = {"custom_hooks": [*hooks, kills], "randomness.seed": 3, **(options or {})}
        with pytest.raises(SystemExit) as stop:
            command_line(train)(tiny(options, text=text), log=lambda message: None)
        (log,) = (tmp_path / "work").glob("*/*.log")
        return stop.value.code, log.read_text(), runners[-1]

    return run


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


@pytest.mark.slow
def test_a_signal_leaves_a_checkpoint_from_which_the_training_goes_on(stopped, tiny, tmp_path):
    work, straight = tmp_path / "work", tmp_path / "straight"
    handlers = [signal.getsignal(number) for number in SIGNALS]
    status, log, runner = stopped("before_train_iter", 2, ["SIGTERM"])
    assert status == 128 + 15
    assert isinstance(runner.hooks[-1], StopSignalsHook)  # the others have had the iteration
    assert "stopped by SIGTERM after iteration 3; continue with --resume" in log
    assert saved(work) == ["iter_2.pth", "iter_3.pth"]
    assert (work / "last_checkpoint").read_text() == str(work / "iter_3.pth")
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    resumed = train(tiny(), resume="auto", log=lambda message: None)
    assert resumed.iter == 4 and saved(work)[1:] == ["iter_3.pth", "iter_4.pth"]
    work.rename(straight)
    train(tiny({"randomness.seed": 3}), log=lambda message: None)
    one, other = (read_checkpoint(folder / "iter_4.pth")["state_dict"] for folder in (straight, work))
    assert equal(one, other)


def test_a_second_interruption_stops_at_once(stopped, tmp_path, capfd):
    status, _, _ = stopped("before_train_iter", 2, ["SIGINT", "SIGINT"])
    assert status == 130 and saved(tmp_path / "work") == ["iter_2.pth"]
    assert capfd.readouterr().err.endswith("a second Ctrl-C stops at once\ninterrupted\n")


def test_other_signals_after_the_first_change_nothing(stopped, tmp_path):
    """Slurm sends SIGTERM after SIGUSR1."""
    status, log, _ = stopped("before_train_iter", 2, ["SIGUSR1", "SIGTERM", "SIGTERM", "SIGINT"])
    assert status == 128 + 10 and "stopped by SIGUSR1 after iteration 3" in log
    assert saved(tmp_path / "work") == ["iter_2.pth", "iter_3.pth"]


def test_a_checkpoint_that_is_being_written_is_finished_and_not_written_again(stopped, tmp_path, monkeypatch):
    written = []
    write = SafeCheckpointHook._write
    monkeypatch.setattr(
        SafeCheckpointHook, "_write", lambda *given: written.append(given[2]) or write(*given)
    )
    status, log, _ = stopped("before_save_checkpoint", 1, ["SIGTERM"])
    assert status == 143 and "stopped by SIGTERM after iteration 2" in log
    assert written == saved(tmp_path / "work") == ["iter_2.pth"]
    assert read_checkpoint(tmp_path / "work" / "iter_2.pth")["meta"]["iter"] == 2


EPOCHS = """
# 6 images, 2 a batch: 3 iterations an epoch.
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=2, val_interval=1)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end=2, by_epoch=True)]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1, max_keep_ckpts=1))
"""


@pytest.mark.slow
def test_within_an_epoch_the_checkpoint_goes_by_its_iteration_until_the_epochs_is_there(
    stopped, tiny, tmp_path
):
    work = tmp_path / "work"
    assert stopped("before_train_iter", 1, ["SIGTERM"], text=EPOCHS)[0] == 143
    assert saved(work) == ["iter_2.pth"]
    meta = read_checkpoint(work / "iter_2.pth")["meta"]
    assert (meta["epoch"], meta["iter"]) == (0, 2)
    options = {"default_hooks.checkpoint.save_best": None, "train_cfg.max_epochs": 1}
    resumed = train(tiny(options, text=EPOCHS), resume="auto", log=lambda message: None)
    assert resumed.iter == 3 and saved(work) == ["epoch_1.pth"]


@pytest.mark.slow
@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_validation_ends_early_without_scores(stopped, tmp_path, by_epoch):
    """Its checkpoint is there or is written, and is the same, although averaged weights are validated."""
    work, before = tmp_path / "work", tmp_path / "before"
    hooks = [dict(type="EMAHook", momentum=0.5)]
    options, text, expected = {"train_cfg.val_interval": 3}, "", (0, 3, "iter_3.pth")
    if by_epoch:
        options, text, expected = {"default_hooks.checkpoint.interval": 2}, EPOCHS, (1, 3, "iter_3.pth")
    stopped("before_train_iter", 2, ["SIGTERM"], options, text, hooks)
    work.rename(before)
    status, log, runner = stopped("before_val_iter", 1, ["SIGINT"], options, text, hooks)
    assert status == 128 + 2 and "stopped by SIGINT after iteration 3" in log
    assert runner.message_hub.get_info("batches") == 2  # of 5 pictures
    assert not list(work.rglob("validation.json")) and not list(work.glob("best_*"))
    one, other = (read_checkpoint(folder / expected[2]) for folder in (before, work))
    assert (other["meta"]["epoch"], other["meta"]["iter"]) == expected[:2]
    for part in ("state_dict", "ema_state_dict", *([] if by_epoch else ["optimizer"])):  # its rate, by epochs
        assert equal(one[part], other[part]), part


def test_gathered_gradients_are_used_first(stopped, tmp_path):
    accumulate = {"optim_wrapper.accumulative_counts": 2, "default_hooks.checkpoint.interval": 4}
    status, log, _ = stopped("before_train_iter", 0, ["SIGTERM"], accumulate)
    assert status == 143 and "stopped by SIGTERM after iteration 2" in log
    assert saved(tmp_path / "work") == ["iter_2.pth"]


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("SIGTERM", 143, "stopped by SIGTERM before the first iteration, with nothing new to save\n"),
        ("SIGINT", 130, "interrupted\n"),
        (
            "SIGUSR1",
            1,
            "error: stopped by SIGUSR1 before the first iteration, with nothing new to save; "
            "the job needs more time\n",
        ),
    ],
)
def test_before_the_first_iteration_it_ends_at_once(tiny, tmp_path, monkeypatch, capsys, name, status, said):
    """With a status for SIGUSR1 that does not let a job be submitted again and again."""
    monkeypatch.setattr(train_module, "check_data", lambda *given: os.kill(os.getpid(), signal.Signals[name]))
    with pytest.raises(SystemExit) as stop:
        command_line(train)(tiny(), log=lambda message: None)
    assert stop.value.code == status and capsys.readouterr().err == said
    assert not (tmp_path / "work").exists()


@pytest.fixture(scope="module")
def cases(tmp_path_factory, rendered_root):
    """The statuses and what was said in every case of ``signalled.py``, with the case's work dir."""
    folder = tmp_path_factory.mktemp("signalled")
    config = folder / "config.py"
    config.write_text(f'_base_ = ["{TINY}"]\ndata_root = {rendered_root!r}\n' + VALIDATES_EARLY)
    command = [sys.executable, str(ROOT / "tests" / "support" / "signalled.py"), str(config), str(folder)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=300)
    return {name: (*found, folder / name / "work") for name, found in json.loads(done.stdout).items()}


VALIDATES_EARLY = """
train_cfg = dict(val_interval=3)
default_hooks = dict(checkpoint=dict(interval=4))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "statuses", "iteration", "signalled"),
    [
        ("one rank of two", [143, 143], 2, "SIGTERM"),
        ("a validation", [143, 143], 3, "SIGTERM"),
        ("the last batch of one", [143, 143], 3, "SIGTERM"),
        ("workers", [130], 2, "SIGINT"),
    ],
)
def test_processes_stop_together(cases, name, statuses, iteration, signalled):
    """The signals come to the last rank alone, and to its workers; the first rank writes and says it."""
    found, said, work = cases[name]
    assert found == statuses, said
    assert saved(work) == [f"iter_{iteration}.pth"]
    assert not list(work.rglob("validation.json"))
    assert said[0].endswith(f"stopped by {signalled} after iteration {iteration}; continue with --resume\n")
    assert not [one for one in said if "Traceback" in one or "error" in one]
