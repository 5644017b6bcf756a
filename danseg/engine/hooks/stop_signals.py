"""Stop a training by SIGTERM, SIGINT or SIGUSR1, with a checkpoint of the iteration that it has reached."""

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS

from danseg.engine.hooks.safe_checkpoint import SafeCheckpointHook
from danseg.engine.received_signals import ReceivedSignals, receiving
from danseg.errors import Stopped


class _StoppedAfter(Stopped):
    """All processes stop after the same iteration.

    Attributes:
        reached: the epoch and the iteration from which a resumed training has to go on.
        validating: whether a validation was cut off.
    """

    def __init__(self, number: int, epoch: int, iteration: int, validating: bool) -> None:
        super().__init__(128 + number, together=get_world_size() > 1)
        self.name = signal.Signals(number).name
        self.reached = {"epoch": epoch, "iter": iteration}
        self.validating = validating


@contextmanager
def stopping(runner: Any) -> Iterator[None]:
    """Receive signals while a runner trains, and write the checkpoint of a training that one has stopped.

    Raises:
        Stopped: after that, with the status of the signal.
    """
    with receiving():
        try:
            yield
        except _StoppedAfter as stopped:
            _save(runner, stopped)
            runner.call_hook("after_run")
            runner.logger.warning(
                f"stopped by {stopped.name} after iteration {stopped.reached['iter']}; continue with --resume"
            )
            raise


def _save(runner: Any, stopped: _StoppedAfter) -> None:
    if stopped.validating:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):  # the network has the averaged weights until a validation ends
                hook.after_val_epoch(runner)
    safe = next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)
    if safe is not None:
        safe.save_now(runner, stopped.reached)
    else:
        name = f"iter_{stopped.reached['iter']}.pth"
        runner.save_checkpoint(runner.work_dir, name, meta=dict(stopped.reached))


@HOOKS.register_module()
class StopSignalsHook(Hook):
    """Ends a training after the iteration in which a signal came, or during the validation in which it came.

    Any process of a run may get the signal, and others later or never. They agree at every iteration by one
    integer, which they exchange on CPUs while the iteration computes: a signal that comes during an iteration
    therefore acts at the end of the next one if there are several processes. Where gradients are gathered
    over several iterations, a training stops where the optimiser takes its step.

    During a validation a process that gets a signal leaves a note in the group's store, for which the others
    look after every batch. They may see it at different batches, so each of them, whether it has stopped or
    has seen all its batches, waits for what the others say before the scores are computed.
    """

    priority = "LOWEST"  # after the hooks that log, save, and change rates

    def __init__(self) -> None:
        self._received = ReceivedSignals()
        self._group: Any = None
        self._store: Any = None
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._exchange: Any = None
        self._training = False

    def before_train(self, runner: Any) -> None:
        if get_world_size() > 1:
            self._group = torch_dist.new_group(backend="gloo", timeout=_timeout())
            self._store = torch_dist.PrefixStore(
                f"stop_{runner.timestamp}", torch_dist.distributed_c10d._get_default_store()
            )
        if runner.val_loop is not None:
            evaluator = runner.val_loop.evaluator
            evaluator.evaluate = functools.partial(self._evaluate, runner, evaluator.evaluate)
        with receiving() as self._received:
            self._training = self._received.deferred = True

    def after_train(self, runner: Any) -> None:
        self._training = False

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self._start_exchange()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        number = self._agreed()
        if number and _has_stepped(runner.optim_wrapper):
            raise _StoppedAfter(number, runner.epoch, runner.iter + 1, validating=False)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not self._training:
            return
        seen = bool(self._received.first)
        if self._store is not None:
            if seen:
                self._store.set("now", "")
            seen = seen or self._store.check(["now"])
        if seen:
            self._end_validation(runner)

    def _evaluate(self, runner: Any, evaluate: Callable[[int], dict], size: int) -> dict:
        if self._training:
            self._end_validation(runner)
        return evaluate(size)

    def _end_validation(self, runner: Any) -> None:
        self._start_exchange()
        number = self._agreed()
        if number:
            raise _StoppedAfter(number, runner.epoch, runner.iter, validating=True)

    def _start_exchange(self) -> None:
        """Tell the other processes which signal has come here, and begin to hear from them."""
        self._flag.fill_(self._received.first or 0)
        if self._group is not None:
            self._exchange = torch_dist.all_reduce(
                self._flag, torch_dist.ReduceOp.MAX, group=self._group, async_op=True
            )

    def _agreed(self) -> int:
        """The number of the signal that has come to any process, the same in all of them; 0 for none."""
        if self._exchange is None:
            return int(self._received.first or 0)
        self._exchange.wait()
        return int(self._flag)


def _timeout() -> timedelta | None:
    """How long the processes of this run wait for each other."""
    device = "cuda" if torch_dist.get_backend() == "nccl" else "cpu"
    backend = torch_dist.distributed_c10d._get_default_group()._get_backend(torch.device(device))
    return getattr(getattr(backend, "options", None), "_timeout", None)


def _has_stepped(wrapper: OptimWrapper | OptimWrapperDict) -> bool:
    """Whether no optimiser has gathered a part of a gradient, of which a checkpoint would know nothing."""
    several = isinstance(wrapper, OptimWrapperDict)
    return all(one.should_update() for one in (wrapper.values() if several else [wrapper]))
