"""Make or renew the virtual environment that every ``make`` target runs in.

``python3 requirements/install.py .venv`` installs the locked stack (``lock.txt`` and ``onedl.txt``) and
danseg itself, editable; ``--stack openmmlab`` takes ``openmmlab.txt`` instead, the original line of mmseg. A
second run finds the environment ready and does nothing; one that was interrupted is made anew; one
whose lock or setup.py has changed since is brought up to date in place.

Standard library alone, and syntax that Python 3.6 reads, so that an old Python gets a message
instead of a SyntaxError.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock.txt"
STACKS = ("onedl", "openmmlab")  # both own the same imports, so an environment has one of them
OLDEST, NEWEST = (3, 10), (3, 13)

# Settings of the caller that would lead pip out of the new environment or, in the case of
# PIP_NO_BUILD_ISOLATION, let mmcv see torch while it is built and compile its operators for an hour.
LEAKS = ("PYTHONPATH", "PYTHONHOME", "PIP_NO_BUILD_ISOLATION", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")

# `pip check` finds them missing, on purpose: the head of lock.txt says why.
LEFT_OUT = ("requires typing, which is not installed", "requires opencv-python, which is not installed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("venv", type=Path, help="where the environment lies, e.g. .venv")
    parser.add_argument("--stack", choices=STACKS, default=STACKS[0], help="which line of mmseg")
    parser.add_argument(
        "--keep-python",
        action="store_true",
        help="an environment that is ready may stay on another Python than the one that runs this",
    )
    arguments = parser.parse_args()
    venv, stack = arguments.venv.absolute(), arguments.stack
    stamp = venv / ".danseg.json"  # empty while the work is under way, and so after an interruption

    here = [str(ROOT), str(venv)]  # an environment that was copied or moved along points at the old place
    found = read(stamp)
    python = found.get("python") if arguments.keep_python else version_name(sys.version_info)
    same = found.get("here") == here and found.get("stack") == stack and found.get("python") == python
    usable = same and starts(venv)
    if usable and found.get("inputs") == inputs(stack):
        return

    start = time.monotonic()
    if not usable:
        make_venv(venv, stamp)
        python = version_name(sys.version_info)
    stamp.write_text("")
    install(venv, stack)
    ready = {"python": python, "here": here, "stack": stack, "inputs": inputs(stack)}
    stamp.write_text(json.dumps(ready) + "\n")
    say("ready after {:.0f} s".format(time.monotonic() - start))


def make_venv(venv: Path, stamp: Path) -> None:
    """Make an empty environment at ``venv``, over an unfinished or outdated one of our own."""
    python = "Python {} ({})".format(version_name(sys.version_info), sys.executable)
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        fail(
            "{} is not supported: danseg needs Python {} to {}. Name another one, for example "
            "`make demo PYTHON=python3.12`.".format(python, version_name(OLDEST), version_name(NEWEST))
        )
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            fail(
                "{} comes without the module {}, which makes virtual environments. Install it (Debian and "
                "Ubuntu: apt install python{}-venv) or name another Python, for example "
                "`make demo PYTHON=python3.12`.".format(python, module, version_name(sys.version_info))
            )
    if venv.exists():
        if not stamp.is_file():
            fail(
                "{} exists and was not made by `make`, so it is left alone. Move it away, or let make use "
                "another place, for example `make demo VENV=.venv-danseg`.".format(venv)
            )
        say("{} is unfinished or was made for another Python, stack or place: making it anew".format(venv))
        stamp.write_text("")
        for path in venv.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(str(path))
            elif path != stamp:  # the last to stand, or an interruption here would leave a stranger's folder
                path.unlink()
    say("making {} with {}".format(venv, python))
    venv.mkdir(parents=True, exist_ok=True)
    stamp.write_text("")
    run([sys.executable, "-m", "venv", str(venv)])


def stack_lock(stack: str) -> Path:
    """The file of the mm packages that belong to ``stack``."""
    return LOCK.with_name(stack + ".txt")


def install(venv: Path, stack: str) -> None:
    """Install the lock, ``stack`` and danseg into ``venv``: torch first and by name, the rest as listed."""
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    torch = next(line for line in LOCK.read_text().splitlines() if line.startswith("torch=="))
    run([*pip, "install", "--quiet", "--constraint", str(LOCK), "pip"])
    say("installing {} (a build for CUDA is gigabytes to download)".format(torch))
    # Not quiet: this is the long step, and pip shows how far it is.
    run([*pip, "install", "--constraint", str(LOCK), torch])
    say("installing the rest of {} and the mm packages of the {} line".format(LOCK.relative_to(ROOT), stack))
    locked = ["--requirement", str(LOCK), "--requirement", str(stack_lock(stack))]
    run([*pip, "install", "--quiet", "--no-deps", "--build-constraint", str(LOCK), *locked])
    # setuptools warns that an editable installation sees the working directory, which is its purpose.
    danseg = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    run([*pip, "install", "--quiet", *danseg], PYTHONWARNINGS="ignore")

    check = subprocess.run(
        [*pip, "check"],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    problems = [line for line in check.stdout.splitlines() if not any(known in line for known in LEFT_OUT)]
    if check.returncode != 0 and problems:
        fail("the installed packages do not fit together:\n  " + "\n  ".join(problems))


def read(stamp: Path) -> dict:
    """What a finished installation wrote into its stamp; nothing if there is none or it was cut short."""
    try:
        return json.loads(stamp.read_text())
    except (OSError, ValueError):
        return {}


def inputs(stack: str) -> str:
    """A digest of the files that decide what gets installed."""
    files = [LOCK, stack_lock(stack), ROOT / "setup.py", Path(__file__).resolve()]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def starts(venv: Path) -> bool:
    """Whether the environment's Python starts; it does not once the Python it was made of is gone."""
    try:
        return subprocess.call([str(venv / "bin" / "python"), "-c", ""], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def run(command: list, **environment: str) -> None:
    """Run ``command`` without the caller's leaks; on failure say which one it was and stop."""
    environment = {**clean_environment(), **environment}
    status = subprocess.call(command, env=environment, stdin=subprocess.DEVNULL)
    if status != 0:
        fail("`{}` failed with exit status {}; its message stands above.".format(" ".join(command), status))


def clean_environment() -> dict:
    return {name: value for name, value in os.environ.items() if name not in LEAKS}


def version_name(version: tuple) -> str:
    return "{}.{}".format(*version[:2])


def say(message: str) -> None:
    print("setup: " + message, flush=True)


def fail(message: str) -> None:
    sys.exit("setup: error: " + message)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; the next run starts over")
