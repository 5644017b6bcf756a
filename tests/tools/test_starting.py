"""Every tool starts quickly: help and wrong arguments are handled before the slow imports."""

import argparse
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from danseg import apis, tool_arguments
from danseg.apis.analysis import analyse
from danseg.datasets import prepare
from danseg.known_datasets import KNOWN_DATASETS
from danseg.label_maps.id_formats import PREDICTION_IDS
from danseg.visualization import contact_sheet

TOOLS = sorted((Path(__file__).resolve().parents[2] / "tools").glob("*.py"))

# Runs a tool as a command; the last line lists what it has imported beside danseg and the standard library.
PROGRAM = """
import runpy, sys
tool, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = tool
before = set(sys.modules)
try:
    runpy.run_path(tool, run_name="__main__")
finally:
    packages = {name.partition(".")[0] for name in set(sys.modules) - before}
    print("imported:", *(packages - sys.stdlib_module_names - {"danseg"}))
"""

every_tool = pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)


def start(path: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, path, *arguments], capture_output=True, text=True)
    said, _, imported = done.stdout.rpartition("imported:")
    return done.returncode, said + done.stderr, imported.strip()


def test_there_are_tools():
    assert len(TOOLS) >= 8


@every_tool
def test_help_imports_nothing_that_takes_long(path):
    status, said, imported = start(path, "--help")
    assert (status, imported) == (0, "")
    assert said.startswith("usage: ") and "Traceback" not in said


@every_tool
def test_a_mistake_in_the_arguments_is_said_before_anything_is_imported(path):
    status, said, imported = start(path, "--no-such-option")
    assert (status, imported) == (2, "")
    assert said.startswith("usage: ") and "error: " in said and "Traceback" not in said


@pytest.fixture
def parser(tool, monkeypatch):
    """The argument parser of a tool."""

    def parser(name: str) -> argparse.ArgumentParser:
        def stop(self: argparse.ArgumentParser, argv: list[str] | None = None) -> None:
            raise LookupError(self)

        with monkeypatch.context() as patch:
            for method in ("parse_args", "parse_intermixed_args"):
                patch.setattr(argparse.ArgumentParser, method, stop)
            with pytest.raises(LookupError) as caught:
                tool(name).main([])
        return caught.value.args[0]

    return parser


def choices(parser: argparse.ArgumentParser, option: str) -> list[str]:
    return list(parser._option_string_actions[option].choices)


# The tools repeat these values, because importing them would take seconds: they equal danseg's.
def test_choices_are_those_of_danseg(parser):
    assert list(tool_arguments.PRECISIONS) == list(apis.PRECISIONS)
    [dataset] = [action for action in parser("evaluate")._actions if "--dataset" in action.option_strings]
    assert all(name in dataset.help for name in KNOWN_DATASETS)
    assert choices(parser("evaluate"), "--pred-ids") == list(PREDICTION_IDS)


def test_limits_are_those_of_danseg(tool):
    assert tool("browse").MOST == contact_sheet.MOST


def test_defaults_of_an_analysis_are_those_of_danseg(parser):
    signature = inspect.signature(analyse).parameters
    defaults = {action.dest: action.default for action in parser("analyze")._actions}
    shared = set(defaults) & {name for name, one in signature.items() if one.default is not one.empty}
    assert shared == {"worst", "bins", "boundary", "device", "precision"}
    assert all(defaults[name] == signature[name].default for name in shared)


def test_defaults_are_those_of_danseg(parser):
    [commands] = [action for action in parser("prepare_dataset")._actions if action.dest == "dataset"]
    assert len(commands.choices) >= 4
    for name, command in commands.choices.items():
        signature = inspect.signature(getattr(prepare, name)).parameters
        arguments = {action.dest: action for action in command._actions if action.dest != "help"}
        assert set(arguments) <= set(signature)
        for key, action in arguments.items():
            if signature[key].default is not inspect.Parameter.empty:
                # An option that can be repeated starts from an empty list, which a function cannot have.
                default = () if action.default == [] else action.default
                assert default == signature[key].default, (name, key)
