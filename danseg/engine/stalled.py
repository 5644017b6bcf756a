"""Say where a process stands when nothing moves, and end the run when it waits in vain.

A thread looks at the process now and then. What it calls progress: a batch that the training or an evaluation
begins or ends, and a sample that this process or one of its data workers begins or ends. Without progress for
the patience, it warns: where the main thread stands, which data workers and which other processes hold it up.
It warns again each time the wait has doubled. Only two things end the run: data workers that stand still for
twice the patience, and other processes that do not arrive within the collective timeout.
"""

import os
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging import Logger
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.hooks import Hook

from danseg.engine.data_workers import kill, living, notes_now, standing_still, told
from danseg.engine.heartbeats import Heartbeats
from danseg.errors import UserError
from danseg.io.processes import alive

WHY_IT_ENDS = "why it ends"  # what only one process of a run says
_GRACE = 10.0  # seconds that the main thread has to fail by itself, once what it waits for was killed
_MODES = {"train": "training", "val": "validation", "test": "test"}
_FOR_WORKERS = "waiting for its data workers"
_FOR_OTHERS = "waiting for the other processes"
# File and function, where an iteration is known to pass long times, and what it does there.
_DOING = {
    ("dataloader.py", "_get_data"): _FOR_WORKERS,
    ("_tensor.py", "backward"): "in the backward pass",
    ("optimizer_wrapper.py", "update_params"): "in the optimiser's step",
    ("checkpointed_runner.py", "save_checkpoint"): "saving a checkpoint",
    ("evaluator.py", "evaluate"): "computing scores",
    ("distributed.py", "train_step"): "in the forward pass",
    ("base_model.py", "train_step"): "in the forward pass",
}
_TORCH = os.path.dirname(torch.__file__) + os.sep
_COLLECTIVES = os.path.join(_TORCH, "distributed", "")
_PYTHON = sysconfig.get_path("stdlib") + os.sep
_ROOT = str(Path(__file__).resolve().parents[2]) + os.sep


class _Progress:
    """How far the main thread of this process has come. It writes, the watch reads."""

    def __init__(self) -> None:
        self.steps = 0
        self.at = "before the first batch"
        self.logger: Logger | None = None


_progress = _Progress()


def note_progress(at: str) -> None:
    """Note that the main thread has come on, and where it is; for work that no loop of mmengine does."""
    _progress.at = at
    _progress.steps += 1


class ProgressHook(Hook):
    """Notes each batch that a loop begins or ends."""

    priority = "VERY_HIGH"  # what other hooks do comes after the note

    def before_run(self, runner: Any) -> None:
        _progress.logger = runner.logger

    def _before_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, mode: str = "train") -> None:
        self._note("in", runner, batch_idx, mode)

    def _after_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = "train"
    ) -> None:
        self._note("after", runner, batch_idx, mode)

    @staticmethod
    def _note(word: str, runner: Any, batch_idx: int, mode: str) -> None:
        number = f"iteration {runner.iter + 1}" if mode == "train" else f"batch {batch_idx + 1}"
        note_progress(f"{word} {number} of the {_MODES[mode]}")


@contextmanager
def watched(patience_minutes: float) -> Iterator["Watch"]:
    """Watch this process's main thread, which enters the block, during the block.

    Args:
        patience_minutes: how long nothing may move before a warning; 0 waits for ever, without a word.

    Raises:
        UserError: no such time.
    """
    if not patience_minutes >= 0:
        raise UserError(f"--patience {patience_minutes:g}: give minutes, or 0 to wait for ever")
    vars(_progress).update(vars(_Progress()))  # of an earlier run
    watch = Watch(60 * patience_minutes)
    try:
        yield watch
    finally:
        watch.stop()


class Watch:
    """The thread that looks at the thread which made it.

    Attributes:
        patience: in seconds; 0 for ever.
        ending: held by the thread that says why this process ends.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._look_every = min(1.0, patience / 10) if patience else 1.0
        self._main = threading.get_ident()
        self._heartbeats: Heartbeats | None = None
        self._timeout = 0.0
        self.ending = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(1)

    def begin_heartbeats(self, timeout_minutes: float) -> Heartbeats:
        """Look at the other processes, too, which have to arrive at a collective within a time."""
        self._timeout = 60 * timeout_minutes
        self._heartbeats = Heartbeats(self.where, min(2.0, 2 * self._look_every))
        return self._heartbeats

    def end_heartbeats(self) -> None:
        if self._heartbeats is not None:
            beats, self._heartbeats = self._heartbeats, None
            beats.stop()

    def where(self) -> tuple[int, str]:
        """How many steps the main thread has made, and where it stands."""
        doing = _doing(sys._current_frames().get(self._main))
        return _progress.steps, f"{_progress.at}, {doing}"

    def _run(self) -> None:
        seen, waited, warnings, before = (-1, b""), 0.0, 0, time.monotonic()
        while not self._stop.wait(self._look_every):
            # If all of the process was stopped in between, nobody could have moved.
            now = time.monotonic()
            waited += min(now - before, 3 * self._look_every)
            before = now
            is_now = (_progress.steps, notes_now())
            if is_now != seen:
                seen, waited, warnings = is_now, 0.0, 0
                continue
            if self.ending.locked():
                return  # the main thread says why
            self._look_at_others(waited)
            if self.patience and waited >= 2 * self.patience:
                self._end_workers(waited)
                if self._stop.is_set():
                    return
            if self.patience and waited >= self.patience * 2**warnings:
                warnings += 1
                self._warn(waited, warnings)

    def _warn(self, waited: float, number: int) -> None:
        beats = self._heartbeats
        steps, where = self.where()
        still = standing_still()
        if beats is not None and not still and not beats.first_to(f"{steps} {where} {number}"):
            return  # another process that waits for the same has said so
        parts = [f"nothing has moved {_since(waited)}: this process is {where}", *told(still)]
        missing = beats.missing() if beats is not None else []
        if beats is not None and missing:
            parts.append(f"not there yet: {beats.described(missing)}")
        message = "; ".join(parts)
        if _progress.logger is not None and (beats is None or beats.rank == 0):
            _progress.logger.warning(message)
        else:
            print(f"warning: {self._who()}{message}", file=sys.stderr, flush=True)

    def _end_workers(self, waited: float) -> None:
        """End data workers that stand still, and so the loader that waits for them, and so the run."""
        if _FOR_WORKERS not in self.where()[1]:
            return
        still = [one for one in standing_still() if one.number is not None]
        message = (
            f"{self._who()}no data {_since(waited)}, twice the patience (--patience, in minutes): "
            f"{'; '.join(told(still)) or 'no data worker tells what it does'}. Look whether the disk "
            "with these files answers, whether a transform waits for something, and who has stopped the "
            "process; checkpoints remain as they are"
        )
        kill(still, message)
        self._stop.wait(_GRACE)
        if _FOR_WORKERS in self.where()[1] or any(alive(one.pid) for one in still):
            self.end(message)  # a process that the system blocks cannot be killed, and would be waited for

    def _look_at_others(self, waited: float) -> None:
        beats = self._heartbeats
        if beats is None:
            return
        if waited >= _GRACE / 2 and beats.ended():  # gloo has failed before; NCCL may wait
            self.end(what_ended(beats))
        if waited >= self._timeout:
            missing = beats.missing()
            if missing or _FOR_OTHERS in self.where()[1]:
                self.end(
                    f"{self._who()}the other processes did not come within {self._timeout / 60:g} minutes "
                    f"(--collective-timeout). It is {self.where()[1]}; not there: "
                    f"{beats.described(missing) or 'none, all wait'}. Checkpoints remain as they are"
                )

    def _who(self) -> str:
        return f"rank {self._heartbeats.rank}: " if self._heartbeats is not None else ""

    def end(self, message: str) -> None:
        """End this process at once with a message, unless the main thread does so already."""
        if not self.ending.acquire(blocking=False):
            return
        beats = self._heartbeats
        if beats is not None and not beats.first_to(WHY_IT_ENDS):
            beats.wait_until_spoken()  # a launcher stops all processes once one has ended
        else:
            print(f"error: {message}", file=sys.stderr, flush=True)
            if beats is not None:
                beats.has_spoken()
        kill(living(), message)  # they may wait for this process for ever, even after its end
        os._exit(1)  # the main thread cannot: it waits


def what_ended(beats: Heartbeats) -> str:
    """The message of a process whose connection to others is gone."""
    lost = beats.lost()
    return (
        f"{beats.described(lost) or 'another process of this run has ended'}. If it has left no message of "
        "its own, something killed it: mostly the system, for lack of memory (look at dmesg, or at what the "
        "scheduler says of the job). All processes end with it; checkpoints remain as they are"
    )


def _since(waited: float) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(time.time() - waited))
    return f"since {at} ({waited / 60:.2g} minutes)"


def _doing(frame: FrameType | None) -> str:
    """What the functions of a stack are about, and the innermost line that is no library's."""
    doing = collective = place = ""
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if not place and file.startswith(_COLLECTIVES) and not file.endswith("c10d_logger.py"):
            collective = name  # the outermost of them; the logger wraps each
        if not place and not _is_library(file):
            place = f"{file.removeprefix(_ROOT).rpartition('site-packages' + os.sep)[2]}:{frame.f_lineno}"
        doing = doing or _DOING.get((os.path.basename(file), name), "")
        frame = frame.f_back
    parts = [doing, f"{_FOR_OTHERS} in {collective}" if collective else "", f"at {place}" if place else ""]
    return ", ".join(filter(None, parts))


def _is_library(file: str) -> bool:
    if file.startswith((_TORCH, "<")):
        return True
    return file.startswith(_PYTHON) and "site-packages" not in file
