"""Ranks decide and fail together; complete runs of two processes are in tests/tools."""

import multiprocessing
import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as torch_dist

from danseg.engine.distributed import leave_group, on_every_rank, on_rank_zero, process_group
from danseg.errors import Stopped, UserError


def test_one_process_just_works_or_raises():
    for run in (on_rank_zero, on_every_rank):
        assert run(lambda: 3) == 3
        with pytest.raises(UserError, match="broken"):
            run(lambda: (_ for _ in ()).throw(UserError("broken")))


def test_missing_launcher_variables_are_named(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="RANK.*torchrun"), process_group("pytorch"):
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
            process_group(launcher).__enter__()
        assert not groups
        return
    with process_group(launcher, timeout_minutes=2):
        pass
    bound = dict(device_id=torch.device("cuda", 1)) if gpus else {}
    assert groups == [("nccl" if gpus else "gloo", dict(timeout=timedelta(minutes=2), **bound))]
    assert chosen == ([1] if gpus else [])
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
    assert [os.environ[name] for name in names] == ["1", "1", "2", "there"] and os.environ["MASTER_PORT"]


def test_a_node_that_slurm_does_not_name_is_asked_for(monkeypatch):
    there = {name: value for name, value in LAUNCHED["slurm"].items() if name != "MASTER_ADDR"}
    monkeypatch.setattr(os, "environ", {**there, "PATH": ""})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"scontrol show hostname n\[1\] .*set MASTER_ADDR"):
        process_group("slurm").__enter__()


def started_rank(rank: int, port: int, start: int) -> None:
    """Be one rank of the processes that torchrun starts for the first time, or again."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_PORT=str(port))
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_USE_AGENT_STORE="True")
    os.environ.update(TORCHELASTIC_RESTART_COUNT=str(start))
    with process_group("pytorch", timeout_minutes=0.1):
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
    monkeypatch.setattr("danseg.engine.distributed.leave_group", lambda: left.append(True))
    for together in (False, True):
        with pytest.raises(Stopped), process_group("pytorch"):
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
