"""Ranks decide and fail together; complete runs of two processes are in tests/tools."""

import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as torch_dist

import forked
from danseg.engine import distributed
from danseg.engine.distributed import leave_group, on_every_rank, on_rank_zero, process_group
from danseg.engine.stalled import ProgressHook, watched
from danseg.errors import Stopped, UserError


class Unwatched:
    """A watch that sees nothing."""

    ending = threading.Lock()

    def begin_heartbeats(self, timeout_minutes):
        return None

    def end_heartbeats(self):
        pass


def test_one_process_just_works_or_raises():
    for run in (on_rank_zero, on_every_rank):
        assert run(lambda: 3) == 3
        with pytest.raises(UserError, match="broken"):
            run(lambda: (_ for _ in ()).throw(UserError("broken")))


def test_missing_launcher_variables_are_named(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="RANK.*torchrun"), process_group("pytorch", Unwatched(), 2):
        pass


@pytest.mark.parametrize("minutes", [0, -1, math.nan, math.inf])
def test_a_timeout_is_a_time(minutes):
    with (
        pytest.raises(UserError, match="--collective-timeout .*more than 0"),
        process_group("pytorch", Unwatched(), minutes),
    ):
        pass


LAUNCHED = {  # what each launcher sets for the second of two processes of one node
    "pytorch": dict(RANK="1", LOCAL_RANK="1", WORLD_SIZE="2", MASTER_ADDR="there", MASTER_PORT="1"),
    "slurm": dict(
        SLURM_PROCID="1", SLURM_LOCALID="1", SLURM_NTASKS="2", SLURM_NODELIST="n[1]", MASTER_ADDR="there"
    ),
    "mpi": dict(
        OMPI_COMM_WORLD_RANK="1",
        OMPI_COMM_WORLD_LOCAL_RANK="1",
        OMPI_COMM_WORLD_SIZE="2",
        MASTER_ADDR="there",
    ),
}


@pytest.mark.parametrize("gpus", [0, 1, 2])
@pytest.mark.parametrize("launcher", list(LAUNCHED))
def test_each_process_has_its_own_gpu_or_all_have_none(monkeypatch, launcher, gpus):
    monkeypatch.setattr(os, "environ", dict(LAUNCHED[launcher]))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    chosen, groups = [], []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("barrier", "destroy_process_group"):
        monkeypatch.setattr(torch_dist, name, lambda: None)
    monkeypatch.setattr(torch_dist, "init_process_group", lambda kind, **more: groups.append((kind, more)))
    if gpus == 1:
        with pytest.raises(UserError, match="process 1 of this node has no GPU: there are 1"):
            process_group(launcher, Unwatched(), 2).__enter__()
        assert not groups
        return
    with process_group(launcher, Unwatched(), 2):
        pass
    bound = dict(device_id=torch.device("cuda", 1)) if gpus else {}
    # A little later than the watch, which says more, ends the run.
    assert groups == [("nccl" if gpus else "gloo", dict(timeout=timedelta(minutes=2, seconds=5), **bound))]
    assert chosen == ([1] if gpus else [])
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
    assert [os.environ[name] for name in names] == ["1", "1", "2", "there"] and os.environ["MASTER_PORT"]


def test_a_node_that_slurm_does_not_name_is_asked_for(monkeypatch):
    there = {name: value for name, value in LAUNCHED["slurm"].items() if name != "MASTER_ADDR"}
    monkeypatch.setattr(os, "environ", {**there, "PATH": ""})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"scontrol show hostname n\[1\] .*set MASTER_ADDR"):
        process_group("slurm", Unwatched(), 2).__enter__()


def started_rank(rank: int, port: int, start: int) -> None:
    """Be one rank of the processes that torchrun starts for the first time, or again."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_PORT=str(port))
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_USE_AGENT_STORE="True")
    os.environ.update(TORCHELASTIC_RESTART_COUNT=str(start))
    with process_group("pytorch", Unwatched(), 0.1):
        torch_dist.all_reduce(torch.ones(1))


def test_processes_that_torchrun_starts_again_meet_each_other_and_not_those_before_them():
    fork = multiprocessing.get_context("fork")
    store = torch_dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's own
    for start in range(3):
        ranks = [fork.Process(target=started_rank, args=(rank, store.port, start)) for rank in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(60)
        assert [process.exitcode for process in ranks] == [0, 0], start


def fail_if(failing, rank):
    if rank in failing:
        raise UserError(f"broken on {rank}")
    return rank


def test_processes_that_stop_together_leave_together(monkeypatch):
    left = []
    monkeypatch.setattr("danseg.engine.distributed._start", lambda *given: None)
    monkeypatch.setattr("danseg.engine.distributed._leave", lambda watch: left.append(True))
    for together in (False, True):
        with pytest.raises(Stopped), process_group("pytorch", Unwatched(), 0.1):
            raise Stopped(143, together=together)
        assert left == [True] * together


def rank_of_two(rank: int, folder: Path, run, failing: list[int]) -> None:
    """Run one rank: write its result or message to a file of its own, and exit as a tool does."""
    sys.stderr = (folder / f"{rank}.err").open("w")
    torch_dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    (folder / f"{rank}.out").write_text(str(run(lambda: fail_if(failing, rank))))
    leave_group()


@pytest.mark.parametrize(
    ("run", "failing", "results", "said"),
    [
        (on_rank_zero, [], ["0", "None"], ""),
        (on_rank_zero, [1], ["0", "None"], ""),  # this rank's work is not called
        (on_rank_zero, [0], None, "error: broken on 0\n"),
        (on_every_rank, [], ["0", "1"], ""),
        (on_every_rank, [1], None, "error: broken on 1\n"),
        (on_every_rank, [0, 1], None, "error: broken on 0\n"),
    ],
)
def test_two_processes_end_together_with_one_message(tmp_path, run, failing, results, said):
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=rank_of_two, args=(rank, tmp_path, run, failing)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [process.exitcode for process in ranks] == ([1, 1] if results is None else [0, 0])
    assert "".join((tmp_path / f"{rank}.err").read_text() for rank in range(2)) == said
    if results is not None:
        assert [(tmp_path / f"{rank}.out").read_text() for rank in range(2)] == results


PATIENCE, TIMEOUT = 0.6, 2.0  # seconds


def steps(happens, patience=PATIENCE):
    """Run one rank as a tool does: four collectives, before the third of which something happens."""
    rank = int(os.environ["RANK"])
    with watched(patience / 60) as watch, process_group("pytorch", watch, TIMEOUT / 60):
        for step in range(4):
            ProgressHook._note("in", SimpleNamespace(iter=step), step, "train")
            torch_dist.all_reduce(torch.ones(1))
            time.sleep(0.1)
            if step == 2 and rank in happens:
                happens[rank]()


def send(number):
    return lambda: os.kill(os.getpid(), number)


def sleeps():
    time.sleep(60)


def breaks():
    raise ValueError("a bug")


def refuses():
    raise UserError("cannot be used")


def ranks_of(folder, happens, world_size=2, run=steps, store=None):
    """Start ranks, and give what each said and its status; those that still live are then killed.

    A store is that of a launcher, as of torchrun; else rank 0 holds it, as under srun and mpirun.
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = store.port if store else one.getsockname()[1]
    group = dict(WORLD_SIZE=str(world_size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    group["TORCHELASTIC_USE_AGENT_STORE"] = str(store is not None)
    ranks = [
        forked.start(folder / f"{rank}.err", run, happens, RANK=str(rank), LOCAL_RANK=str(rank), **group)
        for rank in range(world_size)
    ]
    patient = [rank not in happens or happens[rank] in (breaks, refuses) for rank in range(world_size)]
    status = [forked.end(one, 20 if wait else 0) for one, wait in zip(ranks, patient, strict=True) if wait]
    for process in ranks:
        process.kill()
        process.join()
    return status, [(folder / f"{rank}.err").read_text() for rank in range(world_size)], ranks


on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_a_run_in_which_all_arrive_says_nothing(tmp_path):
    for _ in range(3):
        assert ranks_of(tmp_path, {})[:2] == ([0, 0], ["", ""])


@on_linux
@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_is_stopped_is_named_and_ends_the_run(tmp_path, lost):
    begun = time.monotonic()
    status, said, ranks = ranks_of(tmp_path, {lost: send(signal.SIGSTOP)})
    assert status == [1] and time.monotonic() - begun < 15
    lines = said[1 - lost].splitlines()
    assert len(lines) > 1
    assert [line.partition(":")[0] for line in lines] == ["warning"] * (len(lines) - 1) + ["error"]
    for line in lines:
        assert f"rank {1 - lost}: " in line and "in iteration 4 of the training" in line
        assert "waiting for the other processes in all_reduce" in line
        assert f"rank {lost} (pid {ranks[lost].pid} on {socket.gethostname()}) is stopped (state T" in line
        assert "test_distributed.py:" in line
    assert "--collective-timeout" in lines[-1]


@on_linux
def test_a_rank_that_hangs_elsewhere_is_named(tmp_path):
    status, said, ranks = ranks_of(tmp_path, {1: sleeps})
    assert status == [1]
    error = said[0].splitlines()[-1]
    line = sleeps.__code__.co_firstlineno + 1
    assert error.startswith("error: rank 0: the other processes did not come within ")
    assert f"rank 1 (pid {ranks[1].pid} on " in error and f"test_distributed.py:{line}" in error


@on_linux
@pytest.mark.parametrize(
    ("lost", "world_size", "launcher_holds"), [(0, 2, False), (1, 2, False), (0, 3, True), (1, 3, True)]
)
def test_a_rank_that_is_killed_ends_all_with_one_line(tmp_path, lost, world_size, launcher_holds):
    store = torch_dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    kill = {lost: send(signal.SIGKILL)}
    status, said, ranks = ranks_of(tmp_path, kill, world_size, store=store if launcher_holds else None)
    assert status == [1] * (world_size - 1)
    (line,) = "".join(said).splitlines()
    assert line.startswith(f"error: rank {lost} (pid {ranks[lost].pid} on ") and "has ended" in line
    assert "memory" in line


@on_linux
@pytest.mark.parametrize("happens", [breaks, refuses])
def test_a_rank_that_fails_speaks_for_all(tmp_path, happens):
    status, said, _ = ranks_of(tmp_path, {1: happens})
    assert status == [1, 1] and said[0] == ""
    assert "ValueError: a bug" in said[1] if happens is breaks else said[1] == "error: cannot be used\n"


def test_processes_that_do_not_come_to_the_start_are_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "_LATER", timedelta())

    def first_alone(happens):
        if os.environ["RANK"] == "0":
            steps(happens, patience=0)

    status, said, _ = ranks_of(tmp_path, {}, run=first_alone)
    assert status == [1, 0]
    lines = [line for line in said[0].splitlines() if not line.startswith("[W")]
    assert lines[0].startswith("error: process 0 has not met the other processes of 2 at 127.0.0.1:")
    assert "--collective-timeout" in lines[0] and "Traceback" not in said[0]
