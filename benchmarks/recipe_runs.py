"""One training of the table of recipes: its folder, its process, what has become of it.

It is ``tools/train.py`` in a folder of its own, which keeps in ``training.json`` what has become of it: a
finished training is never repeated, and one that was cut off goes on from its checkpoint.

Nothing here imports torch, so that the first training starts at once.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.recipe_configs import ROOT, config_text, fingerprint
from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file

STATE, VALIDATION = "training.json", "validation.json"


@dataclass
class Outcome:
    """What has become of a training, as its folder keeps it.

    Attributes:
        settings: what it was trained with. The same folder takes no training with others.
        minutes: how long its processes ran.
        process_bytes: peak of the resident memory of its main process; None where /proc does not say.
        device_mib: peak of PyTorch's allocator on a GPU, while it trained; None on a CPU.
        scores: its last validation (``validation.json``); None while it is not finished.
        note: why it is not finished.
        failed: whether it ended by itself, without scores.
    """

    settings: dict[str, Any]
    minutes: float = 0.0
    process_bytes: int | None = None
    device_mib: int | None = None
    scores: dict[str, Any] | None = None
    note: str = ""
    failed: bool = False


@dataclass
class Training:
    """One training, and its process while it runs."""

    dataset: str
    head: str
    seed: int
    folder: Path
    outcome: Outcome
    process: subprocess.Popen | None = None
    started: float = 0.0
    before: float = 0.0  # minutes of earlier processes

    @property
    def name(self) -> str:
        return f"{self.head} seed {self.seed}"

    @property
    def said(self) -> Path:
        """The file with all that the process has said."""
        return self.folder / "stdout.txt"

    @property
    def finished(self) -> bool:
        return self.outcome.scores is not None

    def saved_iteration(self) -> int:
        """The iteration of the newest checkpoint; 0 if there is none."""
        found = (re.fullmatch(r"iter_(\d+)\.pth", path.name) for path in self.folder.glob("iter_*.pth"))
        return max((int(one[1]) for one in found if one), default=0)

    def start(self, options: Sequence[str], threads: int, lock: int) -> None:
        """Start the process, in a session of its own: it is ended by its group, and by nothing else."""
        # Not in the folder itself, where mmengine writes the whole config under this name.
        config = make_folder(self.folder / "recipe") / f"{self.head}_r18_{self.dataset}.py"
        with whole_file(config) as part:
            part.write_text(config_text(self.head, self.dataset), encoding="utf-8")
        command = [sys.executable, str(ROOT / "tools" / "train.py"), str(config), "--resume"]
        command += ["--seed", str(self.seed), "--work-dir", str(self.folder), *options]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self.outcome.note, self.outcome.failed = "", False
        self.save()
        self.before, self.started = self.outcome.minutes, time.monotonic()
        with self.said.open("w", encoding="utf-8") as said:
            self.process = subprocess.Popen(
                command,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                pass_fds=[lock],
            )

    def look(self) -> None:
        """Take the time and the memory so far."""
        self.outcome.minutes = self.before + (time.monotonic() - self.started) / 60
        assert self.process is not None
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        if peak:  # a process that has just ended has none
            self.outcome.process_bytes = max(self.outcome.process_bytes or 0, int(peak[1]) * 1024)

    def close(self, ended: bool) -> None:
        """Read what the process has left behind; ``ended`` if not by itself."""
        assert self.process is not None
        status, self.process = self.process.returncode, None
        memory = [line["memory"] for line in self.scalars() if "memory" in line]
        self.outcome.device_mib = max(memory, default=None)
        validations = sorted(self.folder.glob(f"*/{VALIDATION}"))
        if status == 0 and validations:
            self.outcome.scores = json.loads(validations[-1].read_text(encoding="utf-8"))
        elif ended:
            self.outcome.note = f"goes on after iteration {self.saved_iteration()} when run again"
        else:
            self.outcome.note = self.last_words() or f"ended with status {status}"
            self.outcome.failed = True
        self.save()

    def scalars(self) -> list[dict]:
        """What was logged of the training by all its processes."""
        found = []
        for path in sorted(self.folder.glob("*/vis_data/scalars.json")):
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last line of a process that was ended
                    found.append(json.loads(line))
        return found

    def last_words(self) -> str:
        """The last error message of the process, or else its last line."""
        said = self.said.read_text(encoding="utf-8", errors="replace").strip()
        found = re.findall(r"^error: (.*)", said, re.MULTILINE)
        return (found or said.splitlines() or [""])[-1]

    def save(self) -> None:
        with whole_file(self.folder / STATE) as part:
            part.write_text(json.dumps(asdict(self.outcome), indent=2) + "\n", encoding="utf-8")

    def discard_checkpoints(self) -> None:
        for path in [*self.folder.glob("*.pth"), self.folder / "last_checkpoint"]:
            path.unlink(missing_ok=True)


def plan(
    dataset: str, heads: Sequence[str], seeds: Sequence[int], folder: Path, settings: dict[str, Any]
) -> list[Training]:
    """The trainings in their order, seed by seed over all heads, with what earlier runs have left of them.

    Raises:
        UserError: a folder holds a training with other settings, or is not writable.
    """
    found = []
    for seed in dict.fromkeys(seeds):
        for head in dict.fromkeys(heads):
            own = make_folder(folder / f"{dataset}_{head}_{seed}", "the folder of a training", "choose --out")
            wanted = settings | {"config": fingerprint(config_text(head, dataset))}
            outcome = Outcome(wanted)
            if (own / STATE).is_file():
                try:
                    outcome = Outcome(**json.loads((own / STATE).read_text(encoding="utf-8")))
                except (ValueError, TypeError) as error:
                    raise UserError(f"{own / STATE} is damaged ({error}): delete the folder") from error
            known = outcome.settings
            differ = [key for key in known.keys() & wanted.keys() if known[key] != wanted[key]]
            if differ:
                was = ", ".join(f"{key} {known[key]} instead of {wanted[key]}" for key in sorted(differ))
                raise UserError(
                    f"{own} holds a training with {was}: choose another --out, or delete that folder"
                )
            found.append(Training(dataset, head, seed, own, outcome))
    return found
