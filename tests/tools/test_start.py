"""Help and mistakes in the arguments are answered before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
NAMES = ("demo", "print_config", "test", "train")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--no-such-option"], 2)])
def test_nothing_but_the_standard_library_is_imported(name, arguments, code):
    # -I and -S hide danseg and every installed package.
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(TOOLS / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == code, done.stderr
    assert "usage: " in done.stdout + done.stderr and "Traceback" not in done.stderr
