"""A forked trial is what a shell would have started."""

import functools
import os
import signal
import sys
import time

import pytest

import fork_server
from campaign_code import Touch
from campaign_kills import die_at

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")


# Called in the process of the trial, which finds what installed modules have, and no test's functions.
SAY_RANK = functools.partial(os.system, "echo rank ${RANK:-none}")
WAIT = functools.partial(time.sleep, 100)


def test_its_output_and_status(tmp_path):
    output = tmp_path / "out.txt"
    run = fork_server.start("evaluate", [tmp_path / "none", tmp_path, "--dataset", "demo"], output)
    assert run.wait(60) == 1
    assert run.text().startswith("error: ") and "Traceback" not in run.text()
    assert fork_server.start("train", ["--no-such-option"], output).wait(60) == 2
    run = fork_server.start("train", ["--help"], output, prepare=SAY_RANK)
    assert run.wait(60) == 0
    assert run.since_start().startswith("rank none") and run.text().startswith("error: ")


def test_ranks_know_one_another(tmp_path):
    run = fork_server.start("train", ["--help"], tmp_path / "out.txt", ranks=2, prepare=SAY_RANK)
    assert run.wait(60) == 0
    assert {line for line in run.text().splitlines() if line.startswith("rank")} == {"rank 0", "rank 1"}


def test_it_dies_when_it_is_killed_or_out_of_time(tmp_path):
    run = fork_server.start("train", ["--help"], tmp_path / "out.txt", prepare=WAIT)
    process = run.processes[0].pid
    for _ in range(100):
        if os.getsid(process) == process:  # a session of its own: all that it starts can be ended
            break
        time.sleep(0.05)
    assert run.alive() and os.getsid(process) == process
    run.kill()
    assert not run.alive() and run.processes[0].exitcode == -signal.SIGKILL
    assert fork_server.start("train", ["--help"], tmp_path / "out.txt", prepare=WAIT).wait(0.3) is None


def test_the_file_operation_of_a_number_is_not_reached(tmp_path):
    work = tmp_path / "work"

    def run(number: int) -> int | None:
        arguments = ["demo", work / str(number), "--train", 1, "--val", 1, "--height", 64, "--width", 64]
        prepare = functools.partial(die_at, number, str(work))
        return fork_server.start("prepare_dataset", arguments, tmp_path / "out.txt", prepare=prepare).wait(60)

    assert run(1) == -signal.SIGKILL and not work.exists()
    assert run(3) == -signal.SIGKILL and work.exists()


def test_the_code_in_the_files_would_run(tmp_path):
    """A reader without care makes the canary: what the campaign counts as executed is not empty."""
    import pickle

    pickle.loads(pickle.dumps(Touch(str(tmp_path / "canary"))))
    assert (tmp_path / "canary").exists()
