"""Signals that stop a training: kept until an iteration ends, and kept away from the workers that load data.

A terminal, torchrun, Slurm and systemd send their signals to all processes of a run, the workers among them.
"""

import functools
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmengine.dist import is_main_process

from danseg.errors import Stopped

# Slurm sends SIGUSR1 before a job's time ends, if the job asks for it. Windows has none.
SIGNALS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


class ReceivedSignals:
    """Handles the signals of one training.

    A signal ends the process at once until ``deferred`` is set, and is then only kept for whoever stops the
    training. A second SIGINT ends it at once in any case.

    Attributes:
        first: the signal that came first.
        deferred: whether the training can be stopped after an iteration.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self.deferred = False
        self._process = os.getpid()
        self._interrupted = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child that was forked: it does what it would do without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received = signal.Signals(number)
        if received == signal.SIGINT:
            if self._interrupted or not self.deferred:
                raise KeyboardInterrupt
            self._interrupted = True
            if is_main_process():
                # Not by print or a logger, which may be what this signal interrupts.
                os.write(2, b"\nstopping after this iteration; a second Ctrl-C stops at once\n")
        elif not self.deferred:
            raise _before_training(received)
        self.first = self.first or received


def _before_training(received: signal.Signals) -> Stopped:
    message = f"stopped by {received.name} before the first iteration, with nothing new to save"
    status = 128 + received
    if received != signal.SIGTERM:
        # The status of SIGUSR1 asks for another start, which would end here again, and again.
        status, message = 1, f"error: {message}; the job needs more time"
    return Stopped(status, message if is_main_process() else "")


_current: ReceivedSignals | None = None


@contextmanager
def receiving() -> Iterator[ReceivedSignals]:
    """Receive signals during the block; within another such block, the same ones.

    Handlers that the program has set itself stay, as does the SIGINT that a shell lets its background jobs
    ignore. Outside the main thread, where Python allows no handlers, nothing is received.
    """
    global _current
    if _current is not None:
        yield _current
        return
    received = ReceivedSignals()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in SIGNALS if not _taken(number)}
    after: dict[signal.Signals, Any] = dict(before)
    _current = received
    try:
        for number in before:
            signal.signal(number, received)
        yield received
    except Stopped as stopped:
        if stopped.together:
            # Once one process has ended, its launcher sends the others SIGTERM, which must not change the
            # status with which they are about to end.
            after = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        _current = None
        for number, handler in after.items():
            signal.signal(number, handler)


def _taken(number: signal.Signals) -> bool:
    """Whether the program wants something of its own done with a signal."""
    handler = signal.getsignal(number)
    if handler == signal.SIG_IGN:
        return number == signal.SIGINT
    return handler not in (signal.SIG_DFL, signal.default_int_handler)


def shelter_workers(loader: Any) -> None:
    """Let the workers of a PyTorch loader live as long as their process, whatever signals a run gets."""
    function = loader.worker_init_fn
    if isinstance(function, functools.partial) and not function.args:  # its arguments remain to be seen
        start = functools.partial(_start_worker, then=function.func, **function.keywords)
    else:
        start = functools.partial(_start_worker, then=function)
    loader.worker_init_fn = start
    if hasattr(signal, "pthread_sigmask"):
        # It starts the workers. A loader that held itself would be freed late, and its workers with it.
        loader._get_iterator = functools.partial(_undisturbed, weakref.ref(loader))


def _undisturbed(reference: weakref.ReferenceType) -> Any:
    """Start workers which get none until they are sheltered, nor does this thread until they are there."""
    loader: Any = reference()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return type(loader)._get_iterator(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker_id: int, then: Callable[..., None] | None, **arguments: Any) -> None:
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    knows_senders = hasattr(signal, "sigwaitinfo")
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGTERM] if knows_senders else [])
    if knows_senders:
        # PyTorch ends a worker that does not answer by SIGTERM, and so does Python at its exit. Only its
        # process may: this thread, and no handler, learns who has sent it. SIGTERM stays blocked for that.
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if then is not None:
        then(worker_id, **arguments)


def _end_with(parent: int) -> None:
    while True:
        sender = signal.sigwaitinfo([signal.SIGTERM]).si_pid
        if sender == parent or os.getppid() != parent:
            os._exit(0)
