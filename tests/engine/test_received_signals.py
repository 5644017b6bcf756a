"""Which signals are received, and that workers survive them."""

import functools
import os
import signal
import threading

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import worker

from danseg.engine.received_signals import SIGNALS, receiving, shelter_workers
from danseg.errors import Stopped


def handlers() -> dict:
    return {number: signal.getsignal(number) for number in SIGNALS}


@pytest.fixture(autouse=True)
def the_same_afterwards():
    before = handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_handlers_are_there_in_the_block_and_the_former_ones_after_it():
    before = handlers()
    with receiving() as received:
        assert set(handlers().values()) == {received}
        with receiving() as inner:
            assert inner is received
        assert set(handlers().values()) == {received}
    assert handlers() == before


def test_what_the_program_does_with_a_signal_stays():
    own = print
    signal.signal(signal.SIGTERM, own)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell has it for a job in the background
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # as torchrun's script has it for torchrun alone
    with receiving() as received:
        assert handlers() == {signal.SIGTERM: own, signal.SIGINT: signal.SIG_IGN, signal.SIGUSR1: received}
    assert handlers()[signal.SIGUSR1] == signal.SIG_IGN


def test_outside_the_main_thread_nothing_is_received():
    before, seen = handlers(), []

    def run():
        with receiving():
            seen.append(handlers())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_process_that_stops_together_with_others_keeps_its_status():
    """Its launcher ends those that are slower than the first."""
    with pytest.raises(Stopped), receiving():
        raise Stopped(143, together=True)
    assert set(handlers().values()) == {signal.SIG_IGN}


class Pids(Dataset):
    """Gives the worker's process, and the number that it was seeded with."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor([os.getpid(), torch.initial_seed()])


def seed_of(worker_id, base):
    torch.manual_seed(base + worker_id)


def send_all(pid: int) -> None:
    """Send a process all signals, from another one than its own and its parent."""
    sender = os.fork()
    if sender == 0:
        for number in SIGNALS:
            os.kill(pid, number)
        os._exit(0)
    os.waitpid(sender, 0)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="needs to know who sent a signal")
def test_workers_survive_what_a_run_gets_and_end_when_their_process_asks(monkeypatch):
    start = worker.signal_handling._set_worker_signal_handlers
    # They get it as soon as they are there, too.
    monkeypatch.setattr(
        worker.signal_handling, "_set_worker_signal_handlers", lambda: (send_all(os.getpid()), start())
    )
    loader = DataLoader(Pids(), num_workers=1, worker_init_fn=functools.partial(seed_of, base=5))
    shelter_workers(loader)
    # What seeds workers in another way looks for this.
    assert loader.worker_init_fn.keywords["base"] == 5
    batches = iter(loader)
    pid, seed = next(batches)[0].tolist()
    assert seed == 5
    send_all(pid)
    assert [batch[0, 0].item() for batch in batches] == [pid] * 7
    batches = iter(loader)
    pid = int(next(batches)[0, 0])
    (last,) = batches._workers
    last.terminate()
    last.join(10)
    assert last.exitcode == 0
