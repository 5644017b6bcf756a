"""Every line that starts a training keeps the config's total batch, or scales the learning rate.

What the scripts for launchers run, with launchers that only say how they are called.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from danseg.engine.config.config_file import load_config
from documents import DOCUMENTS, ROOT, shell_lines

LINES = [
    (page.name, line)
    for page in DOCUMENTS
    for line in shell_lines(page)
    if re.search(r"train\.py configs/|\bdanseg train [a-z]\w*(?= |$)|(dist|slurm)_train\.sh", line)
    and "max_iters=" not in line  # no trials
]


def test_there_are_lines():
    assert [line for _, line in LINES if "--launcher slurm" in line] and len(LINES) >= 5


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_launch_keeps_the_total_batch_or_scales_the_rate(page, line):
    named = re.search(r"configs/\w+\.py", line)
    config = load_config(ROOT / named[0] if named else re.search(r"\bdanseg train (\w+)", line)[1])
    numbers = re.findall(r"--(?:nnodes|nodes|nproc_per_node|ntasks-per-node)=(\d+)", line)
    total = config.train_dataloader.batch_size
    for number in numbers:
        total *= int(number)
    assert "--auto-scale-lr" in line or total == config.auto_scale_lr.base_batch_size, total


@pytest.mark.parametrize("name", ["dist_train.sh", "slurm_train.sh"])
def test_the_scripts_say_what_another_number_of_processes_needs(name):
    assert "--auto-scale-lr" in (ROOT / "tools" / name).read_text()


@pytest.fixture
def launch(tmp_path):
    """Run a script with launchers that note their arguments: its status, what it said, and the notes.

    Launchers end with the status that ``statuses`` has of them, or with 0.
    """

    def run(*command, statuses=None, **variables):
        notes = tmp_path / "notes"
        notes.unlink(missing_ok=True)
        for name in ("srun", "sbatch", "scontrol", "torchrun"):
            tool = tmp_path / "bin" / name
            tool.parent.mkdir(exist_ok=True)
            tool.write_text(
                f'#!/bin/sh\nfor one in {name} "$@"; do printf \'%s\\036\' "$one"; done >> {notes}\n'
                f"echo >> {notes}\nexit {(statuses or {}).get(name, 0)}\n"
            )
            tool.chmod(0o755)
        left = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        done = subprocess.run(
            ["bash", *command],
            env={**left, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **variables},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        lines = notes.read_text().split("\n")[:-1] if notes.exists() else []
        return done.returncode, done.stdout + done.stderr, [line.rstrip("\36").split("\36") for line in lines]

    return run


SLURM = str(ROOT / "tools" / "slurm_train.sh")
OPTIONS = ["--cfg-options", "a.b=['c d']", "x=$HOME"]


def test_outside_a_job_slurm_train_submits_one_that_runs_itself(launch, tmp_path):
    status, said, [submitted] = launch(
        SLURM, "gpu", "my job", "c.py", *OPTIONS, GPUS="8", SBATCH_ARGS="--time=8:00:00 --signal=USR1@300"
    )
    assert status == 0, said
    for option in ("--partition=gpu", "--job-name=my job", "--ntasks=8", "--gres=gpu:4", "--requeue"):
        assert option in submitted
    # The last one is in force.
    assert [one for one in submitted if one.startswith("--signal")] == [
        "--signal=USR1@120",
        "--signal=USR1@300",
    ]
    wrapped = tmp_path / "wrapped.sh"
    wrapped.write_text(f"#!/bin/sh\n{submitted[submitted.index('--wrap') + 1]}\n")  # as Slurm makes it
    status, said, (step, requeued) = launch(
        "-c", f"exec sh {shlex.quote(str(wrapped))}", statuses={"srun": 138}, SLURM_JOB_ID="17"
    )
    assert status == 138 and "queued again" in said
    program = step.index("python")
    assert "--kill-on-bad-exit=1" in step[:program]
    tool, config, *options = step[program + 2 :]
    assert (Path(tool), config) == (ROOT / "tools" / "train.py", "c.py")
    assert options == ["--resume", "--launcher", "slurm", *OPTIONS]
    assert requeued == ["scontrol", "requeue", "17"]


@pytest.mark.parametrize("status", [0, 1, 143])
def test_a_job_that_ended_for_another_reason_is_not_queued_again(launch, status):
    """A training that has ended, failed, or was cancelled."""
    job = dict(SLURM_JOB_ID="17", REQUEUE="1")
    found, _, lines = launch(SLURM, "gpu", "job", "c.py", statuses={"srun": status}, **job)
    assert found == status and [line[0] for line in lines] == ["srun"]


def test_within_an_allocation_nothing_is_submitted_or_queued(launch):
    status, _, lines = launch(SLURM, "gpu", "job", "c.py", statuses={"srun": 138}, SLURM_JOB_ID="17")
    assert status == 138 and [line[0] for line in lines] == ["srun"]


def test_starting_over_is_not_resuming(launch):
    _, _, [step] = launch(SLURM, "gpu", "job", "c.py", "--start-over", SLURM_JOB_ID="17")
    assert "--resume" not in step and step[-1] == "--start-over"


@pytest.mark.parametrize("restarts", [None, "3"])
def test_torchrun_starts_processes_again_if_asked_to(launch, restarts):
    variables = {"MAX_RESTARTS": restarts} if restarts else {}
    _, _, [line] = launch(str(ROOT / "tools" / "dist_train.sh"), "c.py", "2", **variables)
    assert line[0] == "torchrun" and f"--max-restarts={restarts or 0}" in line
