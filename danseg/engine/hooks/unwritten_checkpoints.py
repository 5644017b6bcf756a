"""What a training does when a checkpoint cannot be written: it stops, or goes on as if it had not tried."""

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import Hook

from danseg.engine.dispensable import Dispensable
from danseg.engine.distributed import fail_on_every_rank
from danseg.errors import UserError

STOP, GO_ON = "stop", "go_on"


class CheckpointNotWritten(UserError):
    """A checkpoint could not be written; the runner raises it on every rank alike."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"{why}. Earlier checkpoints are untouched; make room and continue with --resume")


class UnwrittenCheckpoints:
    """Decides what follows from :class:`CheckpointNotWritten`.

    Args:
        choice: "stop" ends the training; "go_on" warns, and the next checkpoint is tried when its turn comes.
            The last one of a training has no next one, so that it stops in any case.
    """

    def __init__(self, choice: str) -> None:
        if choice not in (STOP, GO_ON):
            raise ValueError(f"on_full_disk={choice!r}: choose {STOP!r} or {GO_ON!r}")
        self._choice = choice
        self._writing = Dispensable("checkpoints")

    @contextmanager
    def __call__(self, hook: Hook, runner: Any, done: int) -> Iterator[None]:
        """Guard one method of a checkpoint hook, which is left as it was if nothing could be written.

        Args:
            hook: the checkpoint hook.
            runner: the training's.
            done: how many iterations are done.
        """
        before = {
            name: copy.copy(value) if isinstance(value, (list, dict, deque)) else value
            for name, value in vars(hook).items()
        }
        told = dict(runner.message_hub.runtime_info)
        try:
            yield
        except CheckpointNotWritten as error:
            if self._choice == STOP or done >= runner.max_iters:
                fail_on_every_rank(error)
            vars(hook).update(before)
            runner.message_hub.runtime_info.clear()
            runner.message_hub.runtime_info.update(told)
            self._writing.failed(UserError(error.why))
        else:
            if _checkpoints(runner.message_hub.runtime_info) != _checkpoints(told):
                self._writing.worked()


def _checkpoints(info: Mapping[str, Any]) -> dict[str, Any]:
    """What mmengine notes about the checkpoints that it writes."""
    return {name: value for name, value in info.items() if "_ckpt" in name}
