"""Every command in a page is one that its program takes: it is parsed, and not run."""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents import DOCUMENTS, ROOT, prose, shell_lines

# Of a script's arguments, those that it gives to a tool: not the partition, the job's name, the processes.
SCRIPTS = {
    "dist_train": ("train", lambda words: [words[0], *words[2:]]),
    "dist_test": ("test", lambda words: [*words[:2], *words[3:]]),
    "slurm_train": ("train", lambda words: words[2:]),
}
# Sub-commands of ``danseg`` are called as the files are, in short.
COMMANDS = {
    path.stem.removesuffix("_dataset").replace("_", "-"): path.stem for path in (ROOT / "tools").glob("*.py")
}
TARGETS = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()


class Parsed(BaseException):
    """A program has parsed its arguments, and would begin."""


@pytest.fixture
def parse_alone(monkeypatch):
    """Make programs end as soon as they have parsed their arguments, by raising `Parsed` with these."""

    def ending(parse):
        def parse_and_end(parser, args=None, namespace=None):
            raise Parsed(parse(parser, args, namespace))

        return parse_and_end

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, ending(getattr(argparse.ArgumentParser, name)))


def commands(line: str) -> Iterator[tuple[str, list[str]]]:
    """The programs of danseg that a line of shell calls, and their arguments.

    A program is ``tools.NAME``, ``benchmarks.NAME``, or ``make``.
    """
    if not re.search(r"tools/\w+\.(py|sh)|\bdanseg \w|benchmarks\.|\bmake ", line):
        return
    for part in re.split(r"\s(?:&&|\|\||[|;&])\s", line.partition(" # ")[0]):
        words = shlex.split(part)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        for index, word in enumerate(words):
            rest = words[index + 1 :]
            if tool := re.fullmatch(r"tools/(\w+)\.py", word):
                yield f"tools.{tool[1]}", rest
            elif script := re.fullmatch(r"tools/(\w+)\.sh", word):
                name, given = SCRIPTS[script[1]]
                yield f"tools.{name}", given(rest)
            elif word.startswith("benchmarks.") and words[index - 1] == "-m" and "$" not in word:
                yield word, rest
            elif index == 0 and word == "danseg" and re.match(r"[a-z]", rest[0]):
                yield f"tools.{COMMANDS.get(rest[0], rest[0])}", rest[1:]
            elif index == 0 and word == "make":
                yield word, rest
            else:
                continue
            break


def wrong(line: str, tool, capsys) -> list[str]:
    """What is wrong with the commands of a line."""
    faults = []
    for program, words in commands(line):
        if program == "make":
            unknown = [word for word in words if "=" not in word and word not in TARGETS]
            faults += [f"{line}: make has no target {word}" for word in unknown]
            continue
        kind, _, name = program.partition(".")
        if not (ROOT / kind / f"{name}.py").is_file():
            faults.append(f"{line}: there is no {kind}/{name}.py")
            continue
        module = tool(name) if kind == "tools" else importlib.import_module(program)
        try:
            module.main(words)
            faults.append(f"{line}: {program} did not parse its arguments")
        except Parsed as parsed:
            config = getattr(parsed.args[0], "config", None) or ""
            if config.startswith("configs/") and not (ROOT / config).is_file():
                faults.append(f"{line}: there is no {config}")
            elif re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", config):  # a recipe by its name
                if not (ROOT / "configs" / f"{config}.py").is_file():
                    faults.append(f"{line}: there is no recipe {config}")
        except SystemExit as ended:
            if ended.code:
                faults.append(f"{line}: {capsys.readouterr().err}")
    return faults


def lines(page: Path) -> list[str]:
    """What a reader of a page would type: lines of its blocks, and whole commands within its text."""
    inline = re.findall(r"`((?:python tools/|python -m benchmarks|make )[^`]+)`", prose(page))
    return shell_lines(page) + [line for line in inline if " ... " not in line]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_is_one_that_its_program_takes(page, tool, parse_alone, capsys):
    assert not [fault for line in lines(page) for fault in wrong(line, tool, capsys)]


def test_commands_are_found():
    found = [command for page in DOCUMENTS for line in lines(page) for command in commands(line)]
    assert {"tools.train", "tools.predict", "benchmarks.training", "make"} <= {
        program for program, _ in found
    }
    assert len(found) > 60


@pytest.mark.parametrize(
    "line",
    [
        "python tools/train.py configs/danet_r18_camvid.py --sed 0",
        "torchrun --nproc_per_node=2 tools/train.py configs/danet_r18_camvid.py --launcher torch",
        "python tools/train.py configs/danet_r19_camvid.py",
        "danseg train danet_r19_camvid",
        "danseg nothing --at all",
        "danseg prepare nowhere",
        "tools/dist_train.sh configs/danet_r18_camvid.py 2 --sed 0",
        "OMP_NUM_THREADS=1 tools/slurm_train.sh gpu job configs/danet_r18_camvid.py --sed 0",
        "python -m benchmarks.attention --sizes nowhere --repeat",
        "make doc",
    ],
)
def test_a_mistaken_command_is_found(line, tool, parse_alone, capsys):
    assert wrong(line, tool, capsys)


@pytest.mark.parametrize(
    "line",
    [
        "danseg train danet_r18_camvid --seed 0 && danseg prepare demo --train 3",
        "danseg --version",
        "danseg print-config --help",
        "CUDA_VISIBLE_DEVICES=1 tools/dist_test.sh configs/danet_r18_camvid.py best.pth 2 --tta  # both",
        "torchrun --nproc_per_node=2 tools/test.py configs/danet_r18_camvid.py best.pth --launcher pytorch",
        "make lint STACK=openmmlab",
        "pip install danseg",
    ],
)
def test_a_right_command_is_right(line, tool, parse_alone, capsys):
    assert not wrong(line, tool, capsys)
