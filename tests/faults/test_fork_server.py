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


def _wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)


def _say(text: str) -> None:
    print(text, os.getsid(0) == os.getpid(), os.environ.get("RANK"), flush=True)


def test_its_output_status_and_session(tmp_path):
    run = fork_server.start(
        "evaluate", [tmp_path / "none", tmp_path, "--dataset", "demo"], tmp_path / "out.txt"
    )
    assert run.wait(60) == 1
    assert run.text().startswith("error: ") and "Traceback" not in run.text()
    assert fork_server.start("train", ["--no-such-option"], tmp_path / "out.txt").wait(60) == 2
    run = fork_server.start(
        "train", ["--help"], tmp_path / "out.txt", prepare=functools.partial(_say, "here")
    )
    assert run.wait(60) == 0
    assert run.since_start().startswith("here True None") and run.text().startswith("error: ")


def test_ranks_know_one_another(tmp_path):
    prepare = functools.partial(_say, "rank")
    run = fork_server.start("train", ["--help"], tmp_path / "out.txt", ranks=2, prepare=prepare)
    assert run.wait(60) == 0
    assert {line for line in run.text().splitlines() if line.startswith("rank")} == {
        "rank True 0",
        "rank True 1",
    }


def test_it_dies_when_it_is_killed_or_out_of_time(tmp_path):
    prepare = functools.partial(_wait_for, str(tmp_path / "never"))
    run = fork_server.start("train", ["--help"], tmp_path / "out.txt", prepare=prepare)
    assert run.alive()
    run.kill()
    assert not run.alive() and run.processes[0].exitcode == -signal.SIGKILL
    assert fork_server.start("train", ["--help"], tmp_path / "out.txt", prepare=prepare).wait(0.3) is None


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
