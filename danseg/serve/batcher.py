"""A thread that takes samples of one size through the network together, as many as wait."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from danseg.apis.batches import size_of


@dataclass(frozen=True, eq=False)
class _Waiting:
    sample: dict
    size: tuple
    labels: Future = field(default_factory=Future)


class Batcher:
    """Collects samples until a batch is full or the first has waited long enough; then the network runs.

    While it runs, others gather, so that batches grow with the load. A sample whose result was cancelled is
    left out. If a batch fails, its samples go through the network one by one: one that cannot be taken, or
    that needs too much memory, fails alone.

    Args:
        network: labels (H, W) of samples of one size, in their order.
        limit: how many samples of a sample's size go together.
        wait: seconds.
        observe: is told the size of each batch.

    Attributes:
        broken: why the network will not work again before the process has been started anew; None if it does.
    """

    def __init__(
        self,
        network: Callable[[Sequence[dict]], Sequence[np.ndarray]],
        limit: Callable[[dict], int],
        wait: float,
        observe: Callable[[int], None],
    ) -> None:
        self._network, self._limit, self._wait, self._observe = network, limit, wait, observe
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._closed = False
        self.broken: str | None = None
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, sample: dict) -> Future:
        """The labels of a sample, some time."""
        one = _Waiting(sample, size_of(sample))
        with self._changed:
            self._waiting.append(one)
            self._changed.notify()
        return one.labels

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive() and self.broken is None

    def close(self, timeout: float) -> None:
        """End, after what waits; at most ``timeout`` seconds are spent on it."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while batch := self._take():
            todo = [one for one in batch if one.labels.set_running_or_notify_cancel()]
            if todo:
                self._observe(len(todo))
                self._carry_out(todo)
            del batch, todo  # nothing of them is kept while the next ones are waited for

    def _take(self) -> list[_Waiting]:
        """The oldest one and those of its size that come in time; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return []
            first = self._waiting[0]
            most, until = self._limit(first.sample), time.monotonic() + self._wait
            while len(taken := [one for one in self._waiting if one.size == first.size][:most]) < most:
                if self._closed or not self._changed.wait(until - time.monotonic()):
                    break
            self._waiting = [one for one in self._waiting if one not in taken]
            return taken

    def _carry_out(self, batch: list[_Waiting]) -> None:
        try:
            found = self._network([one.sample for one in batch])
        except BaseException as error:  # whoever waits for it is told
            if "CUDA" in str(error) and isinstance(error, RuntimeError):
                self.broken = str(error).partition("\n")[0]
            elif len(batch) > 1:
                for one in batch:
                    self._carry_out([one])
                return
            for one in batch:
                one.labels.set_exception(error)
            return
        for one, labels in zip(batch, found, strict=True):
            one.labels.set_result(labels)
