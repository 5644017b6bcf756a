"""Disks that are full: a small file system, where this user may mount one, or a limit on files' sizes."""

import contextlib
import errno
import functools
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import fork_server
from campaign_kills import ITERATIONS, SEED, undisturbed
from outcome import Fault, Outcome, Place, faults_of
from shared import TINY, Shared, cache, scored_folders, training
from work_dirs import Ending, logged_iterations, whole_checkpoints

KIB = 1024


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A file system of ``size`` bytes at ``folder``; gives the function that makes it larger.

    Raises:
        PermissionError: this user may mount none.
    """
    folder.mkdir(parents=True)

    def mount(size: int, *more: str) -> None:
        options = ",".join((f"size={size}", *more))
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "danseg-faults", str(folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise PermissionError(errno.EPERM, f"cannot mount a small disk: {done.stderr.strip()}")

    mount(size)
    try:
        yield lambda size: mount(size, "remount")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def in_training(place: Place) -> Outcome:
    """The disk fills up at a random moment of a training; then there is room, and it is resumed."""
    reference, _ = undisturbed(place.shared, 1)
    size = place.random.randrange(8 * KIB, 6000 * KIB)
    disk = place.folder / "disk"
    work_dir = disk / "work"
    output = place.folder / "output.txt"
    arguments = (place.shared.data, work_dir, ITERATIONS)
    variables = cache(place.shared.trained)
    with small_disk(disk, size) as enlarge:
        run = fork_server.start("train", training(*arguments, seed=SEED), output, variables=variables)
        status, text = run.wait(place.seconds), run.since_start()
        wrong = [f"{size // KIB} KiB: {one}" for one in faults_of(text, status)]
        logged = logged_iterations(text)
        written = whole_checkpoints(work_dir)
        damaged = len(list(work_dir.glob("*.pth"))) - len(written) - len(list(work_dir.glob("best_*.pth")))
        if damaged:
            wrong.append(f"{size // KIB} KiB: {damaged} checkpoints are not whole")
        if "warning" not in text.lower() and status == 0 and len(logged) < ITERATIONS:
            wrong.append("ended without a word")
        # What was written stays; the iteration whose checkpoint did not fit is the one that is lost.
        lost = max((logged[-1] if logged else 0) - max(written, default=0) - 1, 0)
        enlarge(100 << 20)
        again = training(*arguments, seed=SEED, more=("--resume",))
        run = fork_server.start("train", again, output, variables=variables)
        resumed = run.wait(place.seconds)
        wrong += [f"{size // KIB} KiB, resumed: {one}" for one in faults_of(run.since_start(), resumed, (0,))]
        if resumed == 0:
            ending = Ending.of(work_dir, run.since_start())
            scored = [one for one in ending.untrue(ITERATIONS, interval=2) if "never validated" not in one]
            wrong += [*scored, *ending.unlike(reference)]
    return Outcome("stopped with a message" if status else "went on with warnings", wrong, lost)


def _commands(shared: Shared, out: Path) -> dict[str, tuple[str, list[object]]]:
    """What else writes: one command a tool."""
    checkpoint = shared.trained / "iter_4.pth"
    frame = min(shared.data.glob("leftImg8bit/val/*/*.png"))
    scored = shared.once("scored", lambda: scored_folders(shared.data, shared.root / "scored"))
    test = [TINY, checkpoint, "--work-dir", out / "work", "--cfg-options", f"data_root={shared.data}"]
    predict = [TINY, checkpoint, frame, "--out", out / "pictures"]
    return {
        "test": ("test", [*test]),
        "test --out": ("test", [*test[:4], "--out", out / "predictions", *test[4:]]),
        "test --show-dir": ("test", [*test[:4], "--show-dir", out / "shown", *test[4:]]),
        "predict": ("predict", predict),
        "predict --attention": ("predict", [*predict, "--attention"]),
        "predict --tiles": ("predict", [*predict, "--tiles", 64]),
        "prepare_dataset": ("prepare_dataset", ["demo", out / "data", *"--train 2 --val 1".split()]),
        "evaluate": ("evaluate", [*scored, "--dataset", "demo", "--out", out, "--workers", 1]),
    }


def in_other_tools(place: Place) -> Outcome:
    """The disk is full after so many bytes of what a tool writes."""
    disk = place.folder / "disk"
    commands = _commands(place.shared, disk)
    name = list(commands)[place.number % len(commands)]
    tool, arguments = commands[name]
    size = place.random.choice((1, 2, 3, 5, 8, 12, 20, 40, 80)) * 4 * KIB
    with small_disk(disk, size):
        run = fork_server.start(
            tool, arguments, place.folder / "output.txt", variables=cache(place.shared.trained)
        )
        status = run.wait(place.seconds)
        wrong = faults_of(run.text(), status)
        left = [path.name for path in disk.rglob("*.part")]
        if left:
            wrong.append(f"half files stay: {', '.join(left)}")
    return Outcome(
        "stopped with a message" if status else "there was room, or a warning",
        [f"{name}, {size // KIB} KiB: {one}" for one in wrong],
    )


def limit_files(size: int) -> None:
    """Let a file that grows above ``size`` bytes fail with an error, as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def largest_files(place: Place) -> Outcome:
    """A training whose checkpoints fit no more: what a quota does. Needs no rights."""
    size = place.random.randrange(1 * KIB, 1700 * KIB)
    arguments = training(place.shared.data, place.folder / "work", ITERATIONS, seed=SEED)
    run = fork_server.start(
        *("train", arguments, place.folder / "output.txt"),
        prepare=functools.partial(limit_files, size),
        variables=cache(place.shared.trained),
    )
    status = run.wait(place.seconds)
    wrong = [f"{size // KIB} KiB a file: {one}" for one in faults_of(run.text(), status)]
    left = [path.name for path in (place.folder / "work").rglob("*.part")]
    if left:
        wrong.append(f"half files stay: {', '.join(left)}")
    return Outcome("stopped with a message" if status else "went on with warnings", wrong)


MAY_MOUNT = os.name == "posix" and os.geteuid() == 0
FAULTS = [
    Fault("file size limit in training", 15, largest_files),
    *(
        [
            Fault("full disk in training", 40, in_training),
            Fault("full disk in other tools", 48, in_other_tools),
        ]
        if MAY_MOUNT
        else []
    ),
]
