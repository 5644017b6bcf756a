"""Every line that starts a training keeps the config's total batch, or scales the learning rate."""

import re
from pathlib import Path

import pytest

from danseg.engine.config.config_file import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]
LINES = [
    (page.name, line)
    for page in PAGES
    for block in re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if re.search(r"train\.py configs/|(dist|slurm)_train\.sh", line) and "max_iters=" not in line  # no trials
]


def test_there_are_lines():
    assert len([line for _, line in LINES if "--launcher slurm" in line]) == 1 and len(LINES) >= 5


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_launch_keeps_the_total_batch_or_scales_the_rate(page, line):
    config = load_config(ROOT / re.search(r"configs/\w+\.py", line)[0])
    numbers = re.findall(r"--(?:nnodes|nodes|nproc_per_node|ntasks-per-node)=(\d+)", line)
    total = config.train_dataloader.batch_size
    for number in numbers:
        total *= int(number)
    assert "--auto-scale-lr" in line or total == config.auto_scale_lr.base_batch_size, total


@pytest.mark.parametrize("name", ["dist_train.sh", "slurm_train.sh"])
def test_the_scripts_say_what_another_number_of_processes_needs(name):
    assert "--auto-scale-lr" in (ROOT / "tools" / name).read_text()
