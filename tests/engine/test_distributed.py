"""Ranks decide and fail together; complete runs of two processes are in tests/tools."""

import multiprocessing
import sys
from pathlib import Path

import pytest
import torch.distributed as torch_dist

from danseg.engine.distributed import on_every_rank, on_rank_zero, process_group
from danseg.errors import UserError


def test_one_process_just_works_or_raises():
    for run in (on_rank_zero, on_every_rank):
        assert run(lambda: 3) == 3
        with pytest.raises(UserError, match="broken"):
            run(lambda: (_ for _ in ()).throw(UserError("broken")))


def test_missing_launcher_variables_are_named(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="RANK.*torchrun"), process_group("pytorch"):
        pass


def fail_if(failing, rank):
    if rank in failing:
        raise UserError(f"broken on {rank}")
    return rank


def rank_of_two(rank: int, folder: Path, run, failing: list[int]) -> None:
    """Run one rank: write its result or message to a file of its own, and exit as a tool does."""
    sys.stderr = (folder / f"{rank}.err").open("w")
    torch_dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    (folder / f"{rank}.out").write_text(str(run(lambda: fail_if(failing, rank))))
    torch_dist.barrier()


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
