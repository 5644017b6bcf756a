"""Pieces of work, each to one process; tests/tools/test_predict.py deals them to two."""

from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from danseg.engine import dealt_work
from danseg.engine.dealt_work import dealt


def test_one_process_gets_all_in_order():
    assert list(dealt(3, "work")) == [0, 1, 2]


@pytest.fixture
def three_processes(monkeypatch):
    """The environment of a process among three, and the launcher's store."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setattr(dealt_work, "get_dist_info", lambda: (0, 3))
    return store


def test_each_piece_goes_to_who_asks_first(three_processes):
    slow, quick = dealt(5, "work"), dealt(5, "work")
    assert next(slow) == 0
    assert [next(quick) for _ in range(3)] == [1, 2, 3]
    assert list(slow) == [4] and list(quick) == []


def test_processes_that_are_started_again_begin_anew(three_processes, monkeypatch):
    assert list(dealt(2, "work")) == [0, 1] and list(dealt(2, "other")) == [0, 1]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert list(dealt(2, "work")) == [0, 1]
