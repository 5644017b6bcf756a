"""Trainings of milliseconds: mmengine's loops and danseg's hooks around a counter instead of a network.

Checkpoints are files of the real form. The score of a validation depends on the number of iterations alone.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.io.files import whole_file

IN_EPOCH = 2  # iterations


class SmallRunner:
    """What hooks and loops ask of a runner.

    Args:
        work_dir: an existing folder; ``log`` in it is its log's.
        hooks: in the order in which they are called.
        scores: of the validation after each iteration, the first after none, by metric.
        loop: arguments of the loop, an epoch-based one if ``max_epochs`` is among them.
    """

    def __init__(
        self, work_dir: Path, hooks: Sequence[Hook], scores: Sequence[dict[str, float]], **loop: int
    ) -> None:
        self.work_dir, self.log_dir = str(work_dir), str(work_dir / "log")
        Path(self.log_dir).mkdir(exist_ok=True)
        self.hooks, self.scores, self.weight, self.validated = hooks, scores, 0, []
        self.said: list[str] = []
        self.logger = SimpleNamespace(info=self.said.append, warning=self.said.append)
        info: dict[str, Any] = {}
        self.message_hub = SimpleNamespace(
            runtime_info=info, update_info=info.__setitem__, get_info=info.__getitem__
        )
        self.visualizer, self.optim_wrapper = SimpleNamespace(), None
        self.model = SimpleNamespace(train=lambda: None, train_step=self._step)
        self.val_loop = SimpleNamespace(run=self._validate)
        self.val_evaluator = SimpleNamespace(metrics=())
        kind = EpochBasedTrainLoop if "max_epochs" in loop else IterBasedTrainLoop
        # An iteration-based loop sleeps where it comes to the end of the data.
        data = [0] * (IN_EPOCH if "max_epochs" in loop else 100)
        self.train_loop = kind(self, DataLoader(data, sampler=DefaultSampler(data)), **loop)  # type: ignore[arg-type]

    iter = property(lambda self: self.train_loop.iter)
    epoch = property(lambda self: self.train_loop.epoch)
    max_iters = property(lambda self: self.train_loop.max_iters)
    max_epochs = property(lambda self: self.train_loop.max_epochs)

    def _step(self, batch: Any, optim_wrapper: Any) -> dict:
        self.weight += 1
        return {}

    def _validate(self) -> None:
        self.validated.append(self.iter)
        self.call_hook("after_val_epoch", metrics=dict(self.scores[self.weight]))

    def call_hook(self, name: str, **arguments: Any) -> None:
        for hook in self.hooks:
            getattr(hook, name)(self, **arguments)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, meta: dict, **kwargs: Any) -> None:
        content = {
            "state_dict": {"weight": torch.tensor(self.weight)},
            "meta": dict(meta),
            "message_hub": {"runtime_info": copy.deepcopy(self.message_hub.runtime_info)},
            "optimizer": {},
        }
        with whole_file(Path(out_dir, filename)) as part:
            torch.save(content, part)

    def resume(self, path: str | Path) -> None:
        checkpoint = read_checkpoint(path)
        self.weight = int(checkpoint["state_dict"]["weight"])
        self.train_loop._iter = checkpoint["meta"]["iter"]
        self.train_loop._epoch = checkpoint["meta"]["epoch"]
        self.message_hub.runtime_info.update(checkpoint["message_hub"]["runtime_info"])

    def train(self) -> None:
        self.train_loop.run()
