"""What a user sees after a mistake, after a bug, and without mmseg."""

import errno
import importlib
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace

import pytest

import danseg.datasets
import danseg.heads
from danseg import errors
from danseg.errors import Stopped, UserError, command_line, require_mmseg, taking_back


def run(body, stdout=subprocess.PIPE):
    """Run a tool whose ``main`` is ``body``; by default its reader leaves before the first line."""
    program = f"import runpy\nerrors = runpy.run_path({errors.__file__!r})\n"  # without torch and mmseg
    program += f"@errors['command_line']\ndef main():\n    {body}\nmain()\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=stdout, stderr=subprocess.PIPE, env=environment
    )
    if process.stdout:
        process.stdout.close()
    message = process.stderr.read().decode()
    process.stderr.close()
    return process.wait(timeout=60), message


def test_arguments_are_passed_and_success_does_not_exit():
    seen = []

    @command_line
    def main(argv=None, *, more=0):
        """Its help."""
        seen.append((argv, more))

    main(["a"], more=1)
    assert seen == [(["a"], 1)]
    assert main.__name__ == "main" and main.__doc__ == "Its help."


def test_a_mistake_is_one_line_on_stderr_and_status_1(capsys):
    @command_line
    def main():
        raise UserError("no such folder: x")

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr() == ("", "error: no such folder: x\n")


@pytest.mark.parametrize(("message", "said"), [("stopped by a signal", "stopped by a signal\n"), ("", "")])
def test_a_signal_that_stops_a_training_gives_its_status(capsys, message, said):
    @command_line
    def main():
        raise Stopped(143, message)

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 143
    assert capsys.readouterr() == ("", said)


def test_an_interruption_is_one_line_and_status_130(capsys):
    @command_line
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), OSError("x"), BrokenPipeError("x")])
def test_other_errors_pass(error, capsys):
    @command_line
    def main():
        raise error

    with pytest.raises(type(error)) as caught:
        main()
    assert caught.value is error and capsys.readouterr().err == ""


# Lines that are still buffered when main returns, and lines that overflow the buffer while it runs.
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_leaves_is_no_error(lines):
    assert run(f"import time; time.sleep(0.3); print('line\\n' * {lines})") == (1, "")


@pytest.mark.parametrize(("lines", "then"), [(1, "the work itself is done"), (100_000, "make room")])
def test_an_output_that_cannot_be_written_is_one_line_and_status_1(lines, then):
    with open("/dev/full", "w") as full:
        status, said = run(f"print('line\\n' * {lines})", stdout=full)
    assert status == 1
    assert said == f"error: the output cannot be written: No space left on device; {then}\n"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "No space left on device; make room"),
        (errno.EDQUOT, "Disk quota exceeded; make room"),
        (errno.EROFS, "Read-only file system; name a place that can be written to"),
        (errno.ENAMETOOLONG, "File name too long; shorten it"),
    ],
)
@pytest.mark.parametrize("name", ["x.json", b"x.json", None])
def test_an_error_of_the_system_is_one_line(number, said, name, capsys):
    @command_line
    def main():
        raise OSError(number, os.strerror(number), name)

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"error: {'x.json: ' if name else ''}{said}\n"


def test_mmseg_that_is_there_is_enough(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert require_mmseg("danseg.heads") is None


@pytest.mark.parametrize("package", [danseg.datasets, danseg.heads], ids=lambda package: package.__name__)
def test_without_mmseg_the_import_says_how_to_install_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmseg", None)  # as if mmseg were not installed
    with pytest.raises(ModuleNotFoundError) as error:
        importlib.reload(package)
    assert error.value.name == "mmseg"
    for part in (package.__name__, "pip install 'danseg[onedl]'", "'danseg[openmmlab]'"):
        assert part in str(error.value)


LAUNCHED = {
    "pytorch": dict(WORLD_SIZE="2", LOCAL_RANK="0", RANK="0"),
    "slurm": dict(SLURM_STEP_NUM_TASKS="2", SLURM_PROCID="0"),
    "mpi": dict(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0"),
}


@pytest.mark.parametrize("launcher", LAUNCHED)
def test_several_processes_that_do_not_know_of_each_other_are_one_message(launcher, monkeypatch, capsys):
    for name, value in LAUNCHED[launcher].items():
        monkeypatch.setenv(name, value)
    done = []
    for args, fix in (
        (Namespace(launcher="none"), f"share the work out with --launcher {launcher}"),
        (Namespace(), "this tool works in one; start it without the launcher"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command_line(done.append)(args)
        said = f"error: 2 processes were started, each of which would do all of it; {fix}\n"
        assert stopped.value.code == 1 and capsys.readouterr().err == said
    rank = next(name for name in reversed(LAUNCHED[launcher]) if name.endswith(("RANK", "PROCID")))
    monkeypatch.setenv(rank, "1")
    with pytest.raises(SystemExit) as stopped:
        command_line(done.append)(Namespace())
    assert stopped.value.code == 1 and capsys.readouterr().err == "" and not done
    command_line(done.append)(Namespace(launcher=launcher))
    monkeypatch.setenv(rank, "0")
    monkeypatch.setenv(next(iter(LAUNCHED[launcher])), "1")
    command_line(done.append)(Namespace(launcher="none"))
    assert len(done) == 2


def test_sigterm_takes_back_what_is_half_made(capsys):
    taken_back = []

    def main(args):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(9)
        finally:
            taken_back.append(args)

    with pytest.raises(SystemExit) as stopped:
        command_line(taking_back(main))(Namespace())
    assert stopped.value.code == 143 and len(taken_back) == 1
    assert capsys.readouterr().err == "stopped by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_launchers_processes_and_a_programs_own_handler_are_left_alone(handler):
    seen = []
    before = signal.signal(signal.SIGTERM, handler)
    try:
        launcher = "pytorch" if handler == signal.SIG_DFL else "none"
        taking_back(lambda args: seen.append(signal.getsignal(signal.SIGTERM)))(Namespace(launcher=launcher))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [handler]


def test_a_child_of_the_program_ends_as_without_it():
    def main(args):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(9)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM

    taking_back(main)(Namespace())
