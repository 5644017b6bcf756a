"""Which process lives, also where its number was given again, and in which state it is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from danseg.io import processes

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")


def test_a_process_is_told_from_another_one_with_its_number():
    began = time.time()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        born = processes.born(child.pid)
        assert born > processes.born(os.getpid()) > 0
        assert began - 2 < processes.started(child.pid) < time.time() + 2
        assert processes.alive(child.pid) and processes.alive(child.pid, born)
        assert not processes.alive(child.pid, born - 1)
        child.communicate(b"\n")
    assert not processes.alive(child.pid) and processes.born(child.pid) == processes.started(child.pid) == 0
    assert processes.alive(1) and not processes.alive(10**30)
    assert len(processes.boot()) > 30


def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_process_is_followed_from_start_to_end():
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert until(lambda: processes.parent_and_state(child.pid) == (os.getpid(), "S"))
        assert processes.alive(child.pid)
        child.send_signal(signal.SIGSTOP)
        assert until(lambda: processes.parent_and_state(child.pid) == (os.getpid(), "T"))
        assert "stopped" in processes.state_in_words("T") and processes.alive(child.pid)
    finally:
        child.kill()
    assert until(lambda: not processes.alive(child.pid))  # before anybody has asked how
    child.wait()
    assert not processes.alive(child.pid) and processes.parent_and_state(child.pid) == (0, "")


def test_a_name_that_looks_like_a_state_is_none(tmp_path):
    odd = tmp_path / "a) T 1 ("
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(odd), "60"])
    try:
        assert until(lambda: processes.parent_and_state(child.pid) == (os.getpid(), "S"))
    finally:
        child.kill()
        child.wait()
