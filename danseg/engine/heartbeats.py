"""What the processes of a distributed run know of each other while collectives hang or fail.

Each process has a thread that tells the group's store now and then where its main thread is. The thread has
a connection of its own: an operation of the main thread's connection may wait for minutes, and blocks all
others of that connection. A stopped process tells nothing more; one whose main thread hangs goes on to tell,
of the same place.
"""

import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from torch.distributed import DistError, PrefixStore, TCPStore

from danseg.io.processes import alive, boot, parent_and_state, state_in_words
from danseg.io.words import ranges

_PATIENCE_WITH_STORE = 3.0  # seconds; a store answers in milliseconds, unless its process is stopped or gone
_DESCRIBED = 8  # of how many processes a message tells all


class Heartbeats:
    """This process's heartbeats, and what it has read of the others'.

    Args:
        tell: gives how many steps the main thread has made, and what it does.
        interval: seconds between two heartbeats.
    """

    def __init__(self, tell: Callable[[], tuple[int, str]], interval: float = 2.0) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self._tell, self._interval = tell, interval
        self._place = _place()
        self._others: dict[int, dict[str, Any]] = {}
        self._questions: queue.Queue[tuple[Callable[[Any], Any], Future] | None] = queue.Queue()
        self._last_answer: Future = Future()
        self._last_answer.set_result(None)
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._questions.put(None)
        # A thread that comes back from the store's library while the interpreter ends aborts the process.
        self._thread.join(_PATIENCE_WITH_STORE)

    def first_to(self, say: str) -> bool:
        """Whether this process is the first that asks this, and so the one that says something for all."""
        first = self._ask(lambda store: store.add(f"say {say}", 1) == 1)
        if first is None:  # rank 0 has taken the store with it
            return self.rank == min(set(range(1, self.size)) - set(self.ended()), default=self.rank)
        return first

    def has_spoken(self) -> None:
        """Tell those that are not the first to speak that they may end."""
        self._ask(lambda store: store.set("spoken", "1"))

    def wait_until_spoken(self) -> None:
        """Wait while another process finds out what it has to say: it may need this one's store for that."""
        until = time.monotonic() + 8 * self._interval
        while time.monotonic() < until and self._ask(lambda store: store.check(["spoken"])) is False:
            time.sleep(0.05)

    def ended(self) -> list[int]:
        """The other processes on this machine that have ended."""
        return [rank for rank in self._others if self._is_here(rank) and not alive(self._others[rank]["pid"])]

    def lost(self) -> list[int]:
        """The other processes that have ended, or else give no sign of life.

        Those of other machines are silent only after a while, for which this waits.
        """
        until = time.monotonic() + 7 * self._interval
        while time.monotonic() < until:
            answered = self._refresh()
            if self.ended():
                return self.ended()
            if not answered:
                return [0]
            silent = [rank for rank in self._others if self._is_silent(rank)]
            if silent:
                return silent
            time.sleep(0.1)
        return []

    def missing(self) -> list[int]:
        """The other processes that this one waits for.

        Those that are silent or have made fewer steps; if there are none, those that stand elsewhere.
        """
        if not self._refresh():
            return [0]  # it holds the store, or its node does
        steps, doing = self._tell()
        others = sorted(self._others.items())
        furthest = max([steps, *(one["steps"] for _, one in others)])
        behind = [rank for rank, one in others if one["steps"] < furthest or self._is_silent(rank)]
        if behind or steps < furthest:
            return behind
        return [rank for rank, one in others if one["doing"] != doing]

    def described(self, ranks: Sequence[int]) -> str:
        """Which processes these are, and where each of them was last."""
        texts = [self._described(rank) for rank in ranks[:_DESCRIBED]]
        return "; ".join(texts) + (f"; ranks {ranges(ranks[_DESCRIBED:])}" if ranks[_DESCRIBED:] else "")

    def _described(self, rank: int) -> str:
        one = self._others.get(rank)
        if one is None:
            return f"rank {rank}"
        who = f"rank {rank} (pid {one['pid']} on {one['host']})"
        at = time.strftime("%H:%M:%S", time.localtime(one["at"]))
        was = f"at {at} it was {one['doing']}"
        if self._is_here(rank) and not alive(one["pid"]):
            return f"{who} has ended; {was}"
        state = parent_and_state(one["pid"])[1] if self._is_here(rank) else ""
        if state in tuple("TtD"):
            return f"{who} is {state_in_words(state)}; {was}"
        if self._is_silent(rank):
            return f"{who} gives no sign of life since {at}, when it was {one['doing']}"
        return f"{who} is {one['doing']}"

    def _is_silent(self, rank: int) -> bool:
        return time.time() - self._others[rank]["at"] > 5 * self._interval

    def _is_here(self, rank: int) -> bool:
        return self._others[rank]["place"] == self._place

    def _refresh(self) -> bool:
        """Read what the others told last; False if the store does not answer."""
        return bool(self._ask(self._read))

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        """What the thread with the connection is answered; None if nothing within a few seconds."""
        held_by_rank_0 = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        if not self._thread.is_alive() or (held_by_rank_0 and 0 in self.ended()):
            return None  # the library would say at length what it cannot reach
        if not self._last_answer.done():
            return None  # it does not answer: its process is stopped, or cannot be reached
        answer = self._last_answer = Future()
        self._questions.put((question, answer))
        until = time.monotonic() + _PATIENCE_WITH_STORE
        while time.monotonic() < until and self._thread.is_alive():
            with suppress(TimeoutError):
                return answer.result(0.1)
        return None

    def _read(self, store: Any) -> bool:
        keys = [f"heartbeat {rank}" for rank in range(self.size)]
        if not store.check(keys):
            return True  # some have not told anything yet
        for rank, told in enumerate(store.multi_get(keys)):
            if rank != self.rank:
                self._others[rank] = json.loads(told)
        return True

    def _run(self) -> None:
        try:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            # A launcher's store outlives the processes that it starts anew.
            prefix = f"danseg, start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
            store = PrefixStore(prefix, TCPStore(address, port, is_master=False, wait_for_workers=False))
            due = 0.0
            while True:
                if time.monotonic() >= due:
                    store.set(f"heartbeat {self.rank}", self._heartbeat())
                    if len(self._others) < self.size - 1:
                        self._read(store)
                    due = time.monotonic() + self._interval
                try:
                    asked = self._questions.get(timeout=max(0, due - time.monotonic()))
                except queue.Empty:
                    continue
                if asked is None:
                    return
                question, answer = asked
                answer.set_result(question(store))
        except DistError:
            return  # the store is gone, or cannot be reached: questions get no answer

    def _heartbeat(self) -> str:
        steps, doing = self._tell()
        return json.dumps(
            dict(
                host=socket.gethostname(),
                place=self._place,
                pid=os.getpid(),
                at=time.time(),
                steps=steps,
                doing=doing,
            )
        )


def _place() -> str:
    """The same for processes that see each other's pids: the machine's start, and its space of pids."""
    try:
        pids = os.readlink("/proc/self/ns/pid")
    except OSError:
        pids = ""
    started = boot()
    return f"{started} {pids}" if started and pids else socket.gethostname()
