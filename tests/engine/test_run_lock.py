"""A folder has one training: a lock that names a living one, and that no dead one holds."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from child_process import environment
from danseg.engine import run_lock
from danseg.engine.run_lock import LOCK, Holder, locked, sole_run
from danseg.errors import UserError

# It locks its folder, starts a worker by a fork, says so and waits.
CHILD = """
import multiprocessing, sys, time
from danseg.engine.run_lock import locked
with locked(sys.argv[1]):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    print(worker.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(run_lock, "CLOSING", 0.2)
    monkeypatch.setattr(run_lock, "SILENCE", 0.5)
    monkeypatch.setattr(run_lock, "LEASE", 0.7)


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)


def held_by(folder, **changes):
    """A lock's file that names another process; returns its holder."""
    holder = replace(Holder.this_process(), **changes)
    (folder / LOCK).write_text(json.dumps(asdict(holder)))
    return holder


def test_another_training_is_named_while_it_lives_and_forgotten_when_it_is_killed(tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as child:
        worker = int(child.stdout.readline())
        try:
            with pytest.raises(UserError) as refused, locked(tmp_path):
                pass
            for word in (str(tmp_path), f"process {child.pid} on ", "since 20", sys.executable, "--work-dir"):
                assert word in str(refused.value)
            child.kill()
            child.wait()
            os.kill(worker, 0)  # it lives on, with all that it has inherited
            with locked(tmp_path, log=pytest.fail):
                assert Holder.read(tmp_path / LOCK).pid == os.getpid()
        finally:
            os.kill(worker, signal.SIGKILL)
    assert os.listdir(tmp_path) == []


def test_two_trainings_of_one_process_exclude_each_other_and_give_way(tmp_path):
    with locked(tmp_path):
        with pytest.raises(UserError, match=f"another training runs in .*: process {os.getpid()} on"):
            locked(tmp_path).__enter__()
        assert (tmp_path / LOCK).is_file()
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with sole_run([tmp_path / "a", tmp_path / "b"]):
        assert (tmp_path / "a" / LOCK).is_file() and (tmp_path / "b" / LOCK).is_file()
    assert not list(tmp_path.rglob(LOCK))


def test_a_lock_that_another_one_removes_while_it_is_taken_is_taken_anew(tmp_path, monkeypatch):
    flock = fcntl.flock

    def late(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        (tmp_path / LOCK).unlink()
        return flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert Holder.read(tmp_path / LOCK) == replace(
            Holder.this_process(), since=Holder.read(tmp_path / LOCK).since
        )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
def test_a_file_that_names_nobody_is_taken(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path, log=pytest.fail):
        assert Holder.read(tmp_path / LOCK).here


def test_without_locks_there_is_a_warning_and_the_process_is_looked_for(tmp_path, no_locks):
    said = []
    held_by(tmp_path, pid=2**22 + 1)  # of no process
    with locked(tmp_path, said.append):
        [warning] = said
        assert warning.startswith(f"warning: {tmp_path} cannot be locked (Operation not supported)")
        with pytest.raises(UserError, match="another training runs in"):
            locked(tmp_path).__enter__()
    born = Holder.this_process().born
    if born:
        held_by(tmp_path, born=born - 1)  # this process has got the number of a dead one
        with locked(tmp_path, said.append):
            assert len(said) == 2


@pytest.mark.parametrize("locks", [True, False])
def test_a_run_on_another_machine_counts_as_dead_when_it_gives_no_sign_of_life(tmp_path, locks, request):
    if not locks:
        request.getfixturevalue("no_locks")
    said, holder = [], held_by(tmp_path, host="elsewhere", boot="another", pid=1)
    began = time.monotonic()
    with locked(tmp_path, said.append):
        assert time.monotonic() - began >= run_lock.SILENCE
        assert said[0] == f"{tmp_path} was left by {holder}; waiting for a sign of life from there"
        assert len(said) == (1 if locks else 2)

    held_by(tmp_path, host="elsewhere", boot="another")
    os.utime(tmp_path / LOCK, (1, 1))  # long ago
    began = time.monotonic()
    with locked(tmp_path, said.append):
        assert time.monotonic() - began < run_lock.SILENCE


@pytest.mark.parametrize("reaches", [True, False])
def test_a_run_on_another_machine_is_named_when_it_gives_one(tmp_path, monkeypatch, reaches):
    """Whether its lock reaches this machine or not."""
    monkeypatch.setattr(run_lock, "BEAT", 0.1)
    with locked(tmp_path):
        held_by(tmp_path, host="elsewhere", boot="another")
        if not reaches:
            monkeypatch.setattr(fcntl, "flock", lambda *arguments: None)
        with pytest.raises(UserError, match="on elsewhere, since"):
            locked(tmp_path, lambda message: None).__enter__()


def test_a_folder_in_which_the_file_cannot_be_opened_is_used_with_a_warning(tmp_path, monkeypatch):
    (tmp_path / LOCK).mkdir()
    said = []
    with locked(tmp_path, said.append):
        assert "cannot be locked (Is a directory)" in said[0]


def test_other_threads_and_processes_do_not_keep_it(tmp_path):
    before = threading.active_count()
    with locked(tmp_path):
        child = os.fork()
        if not child:
            os._exit(0 if not run_lock._held else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert run_lock._held and Holder.read(tmp_path / LOCK).pid == os.getpid()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before and not run_lock._held
