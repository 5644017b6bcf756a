"""What /proc tells of a process of this machine."""

import os
import signal
import subprocess
import sys
import time

import pytest

from danseg.engine.process_state import has_ended, parent_and_state, state_in_words

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_process_is_followed_from_start_to_end():
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert until(lambda: parent_and_state(child.pid) == (os.getpid(), "S"))
        assert not has_ended(child.pid)
        child.send_signal(signal.SIGSTOP)
        assert until(lambda: parent_and_state(child.pid) == (os.getpid(), "T"))
        assert "stopped" in state_in_words("T") and not has_ended(child.pid)
    finally:
        child.kill()
    assert until(lambda: has_ended(child.pid))  # before anybody has asked how
    child.wait()
    assert has_ended(child.pid) and parent_and_state(child.pid) == (0, "")


def test_a_name_that_looks_like_a_state_is_none(tmp_path):
    odd = tmp_path / "a) T 1 ("
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(odd), "60"])
    try:
        assert until(lambda: parent_and_state(child.pid) == (os.getpid(), "S"))
    finally:
        child.kill()
        child.wait()
