"""Which process lives, also where its number was given again."""

import os
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
