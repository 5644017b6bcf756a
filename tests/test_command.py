"""The command ``danseg``: every file of tools/ is a sub-command of it, and runs as the file would."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import danseg
from child_process import environment
from danseg import command
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.io.files import make_folder

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "engine" / "tiny.py"
NAMES = {
    path.stem.removesuffix("_dataset").replace("_", "-"): path
    for path in sorted((ROOT / "tools").glob("*.py"))
}

every_command = pytest.mark.parametrize("name", NAMES)


def ended(capsys, *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process: its status, and what it said on stdout and stderr."""
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    return end.value.code, *capsys.readouterr()


def test_every_tool_is_a_command():
    assert {"train", "test", "predict", "evaluate", "prepare", "check", "configs", "doctor"} < set(NAMES)
    assert "print-config" in NAMES
    assert command.tools() == NAMES


def test_the_help_lists_every_command_with_its_line(capsys):
    status, said, _ = ended(capsys, "--help")
    listed = dict(
        line.split(maxsplit=1) for line in said.splitlines() if line.startswith("  ") and line[2] not in " -"
    )
    assert status == 0 and listed == {name: command.summary(path) for name, path in NAMES.items()}
    assert listed["train"] == "Train a network"  # its docstring goes on
    assert all(0 < len(line) <= 100 for line in listed.values())


def test_the_help_is_quick_and_imports_nothing_heavy():
    program = (
        "import sys\nfrom danseg.command import main\ntry:\n    main(['--help'])\nfinally:\n"
        "    heavy = {'torch', 'mmengine', 'mmseg', 'mmcv', 'numpy', 'rich'} & set(sys.modules)\n"
        "    print(*heavy, file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        before = os.times()
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
        )
        after = os.times()
        assert (run.returncode, run.stderr.strip()) == (0, "")
        # Of processors, not of the clock: other work must not count.
        used = (after.children_user, after.children_system), (before.children_user, before.children_system)
        seconds.append(sum(used[0]) - sum(used[1]))
    assert min(seconds) < 0.3


@every_command
def test_a_tools_help_is_that_of_the_command(name, capsys):
    status, said, _ = ended(capsys, name, "--help")
    assert status == 0 and said.startswith(f"usage: danseg {name} ")
    assert "tools/" not in said
    assert sys.argv[0] != f"danseg {name}" and sys.modules["__main__"].__dict__.get("__file__") != str(
        NAMES[name]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a COMMAND"),
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["prepare_dataset"], "there is no command 'prepare_dataset'; did you mean 'prepare'?"),
        (["--amp", "train"], "unrecognized arguments: --amp"),
    ],
)
def test_what_is_no_command(arguments, message, capsys):
    status, _, said = ended(capsys, *arguments)
    assert status == 2 and said.startswith("usage: danseg") and message in said


def test_the_version(capsys):
    assert ended(capsys, "--version")[:2] == (0, f"danseg {danseg.__version__}\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of tools that the command has instead of its own."""
    monkeypatch.setattr(command, "tools", lambda: {path.stem: path for path in tmp_path.glob("*.py")})
    return tmp_path


def test_a_tool_runs_as_its_file_would(folder, capsys):
    (folder / "new.py").write_text(
        '"""Something new: ``python tools/new.py``."""\nimport pickle, sys\n\ndef run(): pass\n\n'
        "if __name__ == '__main__':\n"
        "    assert pickle.loads(pickle.dumps(run)) is run and sys.modules['__main__'].__file__ == __file__\n"
        "    print(__file__, *sys.argv, __doc__, sep='|')\n    sys.exit(7)\n"
    )
    argv, main = sys.argv, sys.modules["__main__"]
    status, said, _ = ended(capsys, "new", "--one", "2")
    assert status == 7
    assert said == f"{folder / 'new.py'}|danseg new|--one|2|Something new: ``danseg new``.\n"
    assert sys.argv is argv and sys.modules["__main__"] is main
    assert "  new  Something new\n" in ended(capsys, "--help")[1]


def test_an_error_names_the_command(folder, capsys):
    (folder / "new.py").write_text(
        "from danseg.errors import UserError, command_line\n\n@command_line\ndef main():\n"
        "    raise UserError('first run ' + 'tools/'.join(('python ', 'train.py')))\n\nmain()\n"
    )
    assert ended(capsys, "new") == (1, "", "error: first run danseg train\n")


def test_a_package_that_is_not_installed(folder, capsys):
    (folder / "new.py").write_text(
        "import sys\nfrom danseg.errors import command_line\n\n@command_line\ndef main():\n"
        "    __import__(sys.argv[1])\n\nmain()\n"
    )
    status, _, said = ended(capsys, "new", "not_a_package.part")
    assert status == 1
    assert said == (
        "error: No module named 'not_a_package'; 'danseg doctor' says what is missing and what installs it\n"
    )
    for bug in ("danseg.nothing", "json.nothing"):
        with pytest.raises(ModuleNotFoundError, match="nothing"):
            command.main(["new", bug])


def test_without_tools_it_says_so(folder, capsys):
    assert "has come without its tools; install it again" in ended(capsys, "train")[2]


@pytest.mark.slow
def test_a_message_names_the_command_that_was_used(tmp_path, tool, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, said = ended(capsys, "check", "danet_r18_demo")
    assert status == 1 and "Prepare it with: danseg prepare demo " in said
    with pytest.raises(SystemExit):
        tool("check_dataset").main(["danet_r18_demo"])
    assert "Prepare it with: python tools/prepare_dataset.py demo " in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_of_torchrun_train(tmp_path, rendered_root):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = make_folder(tmp_path / "here")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"),
            *(
                "-m",
                "danseg",
                "train",
                str(TINY),
                "--launcher",
                "pytorch",
                "--work-dir",
                str(tmp_path / "work"),
            ),
            *("--cfg-options", f"data_root={rendered_root}", "train_cfg.max_iters=2"),
        ],
        cwd=here,
        env=environment(CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "2 processes" in run.stdout + run.stderr
    assert read_checkpoint(tmp_path / "work" / "iter_2.pth")["state_dict"]
    assert not list(here.iterdir())
