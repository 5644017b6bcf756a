"""Where a process stands is noted and said; data workers and other processes have tests of their own."""

import inspect
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from mmcv.transforms import BaseTransform
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmseg.registry import TRANSFORMS
from torch import Tensor
from torch.utils.data import get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import forked
from danseg.engine import stalled
from danseg.engine.checkpointed_runner import CheckpointedRunner
from danseg.engine.runner import DansegRunner
from danseg.engine.stalled import ProgressHook, watched
from danseg.errors import UserError

PATIENCE = 0.4  # seconds


@pytest.mark.parametrize("minutes", [-1, float("nan")])
def test_a_patience_is_a_time(minutes, tool):
    with pytest.raises(UserError, match="--patience .*0 to wait for ever"), watched(minutes):
        pass


@pytest.mark.parametrize("name", ["train", "test"])
def test_the_tools_have_both_times(tool, name, capsys):
    arguments = ["config.py", "weights.pth"][: 1 if name == "train" else 2]
    defaults = tool(name).parse_args(arguments)
    assert (defaults.patience, defaults.collective_timeout) == (5, 30)
    with pytest.raises(SystemExit) as ended:
        tool(name).main([*arguments, "--patience", "-2"])
    assert ended.value.code == 1 and capsys.readouterr().err.startswith("error: --patience -2: ")


def test_every_batch_of_a_training_and_its_validation_is_noted(tiny, monkeypatch):
    config = tiny({"train_cfg.max_iters": 2, "train_cfg.val_interval": 2})
    noted = []
    monkeypatch.setattr(
        ProgressHook, "_note", staticmethod(lambda *one: (note(*one), noted.append(stalled._progress.at)))
    )
    runner = DansegRunner.from_cfg(config)
    runner.train()
    training = [f"{word} iteration {n} of the training" for n in (1, 2) for word in ("in", "after")]
    validation = [f"{word} batch {n} of the validation" for n in range(1, 6) for word in ("in", "after")]
    assert noted == training + validation
    assert stalled._progress.logger is runner.logger


note = ProgressHook._note


@TRANSFORMS.register_module()
class EndsItsWorker(BaseTransform):
    def transform(self, results):
        os.kill(os.getpid(), signal.SIGKILL if get_worker_info() else 0)


def test_a_killed_worker_of_a_training_is_explained(tiny):
    config = tiny({"train_dataloader.num_workers": 1})
    config.train_dataloader.dataset.pipeline.insert(2, dict(type="EndsItsWorker"))
    with pytest.raises(
        UserError, match=r"data worker \(pid \d+\) was killed .* while it prepared image .*png"
    ):
        DansegRunner.from_cfg(config).train()


def test_a_killed_worker_of_a_validation_is_explained(tiny):
    config = tiny({"val_dataloader.num_workers": 1})
    config.val_dataloader.dataset.pipeline.insert(2, dict(type="EndsItsWorker"))
    with pytest.raises(
        UserError, match=r"data worker \(pid \d+\) was killed .* while it prepared image .*png"
    ):
        DansegRunner.from_cfg(config).val()


def hang(happens):
    with watched(PATIENCE / 60):
        happens()


def test_what_the_main_thread_does_is_said_at_once_and_at_twice_the_patience(tmp_path):
    def save_checkpoint():
        time.sleep(2.5 * PATIENCE)

    process = forked.start(tmp_path / "said", hang, save_checkpoint)
    assert forked.end(process) == 0
    lines = (tmp_path / "said").read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("warning: nothing has moved since ")
        assert f"tests/engine/test_stalled.py:{save_checkpoint.__code__.co_firstlineno + 1}" in line


def test_a_run_that_was_stopped_as_a_whole_has_not_waited(tmp_path):
    def works():
        for _ in range(8):
            ProgressHook._note("in", SimpleNamespace(iter=0), 0, "train")
            time.sleep(PATIENCE / 2)

    process = forked.start(tmp_path / "said", hang, works)
    time.sleep(2 * PATIENCE)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3 * PATIENCE)
    os.kill(process.pid, signal.SIGCONT)
    assert forked.end(process) == 0
    assert (tmp_path / "said").read_text() == ""


def test_the_functions_of_a_stack_tell_what_it_does():
    def frame_of(file, name, inner="probe()"):
        """The innermost frame of a function in a file of a name."""
        found = []
        scope = {"probe": lambda: found.append(sys._getframe(1)), "time": time}
        exec(compile(f"def {name}():\n    {inner}", file, "exec"), scope)
        scope[name]()
        return found[0]

    torch_folder = stalled._TORCH
    assert stalled._doing(None) == ""
    known = [(f"/x/site-packages/{file}", name, text) for (file, name), text in stalled._DOING.items()]
    assert known
    for file, name, text in known:
        assert stalled._doing(frame_of(file, name)).startswith(f"{text}, at {os.path.basename(file)}:2")
    collective = stalled._doing(frame_of(f"{torch_folder}distributed/distributed_c10d.py", "barrier"))
    assert collective.startswith(
        "waiting for the other processes in barrier, at tests/engine/test_stalled.py:"
    )


def test_the_functions_that_are_looked_for_exist():
    owners = (
        Evaluator,
        BaseModel,
        MMDistributedDataParallel,
        OptimWrapper,
        Tensor,
        _MultiProcessingDataLoaderIter,
        CheckpointedRunner,
    )
    functions = [inspect.unwrap(one) for owner in owners for one in vars(owner).values() if callable(one)]
    codes = [one.__code__ for one in functions if hasattr(one, "__code__")]
    there = {(os.path.basename(code.co_filename), code.co_name) for code in codes}
    assert set(stalled._DOING) <= there


def test_the_watch_ends_with_its_block():
    before = threading.active_count()
    with watched(1):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
