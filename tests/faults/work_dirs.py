"""What a training's work dir holds, read without danseg's readers."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wholeness import complaint

ITERATION = re.compile(r"Iter\(train\) \[ *(\d+)/")
SAID_BEST = re.compile(r"best checkpoint: .*/(\S+) \((?:lowest )?\S+ ([\d.]+)\)")


def whole_checkpoints(work_dir: Path) -> list[int]:
    """The iterations whose checkpoints are whole, in order."""
    found = [
        int(path.stem.removeprefix("iter_"))
        for path in work_dir.glob("iter_*.pth")
        if not complaint(path.read_bytes())
    ]
    return sorted(found)


def logged_iterations(text: str) -> list[int]:
    """The iterations that a run's output calls finished, in its order."""
    return list(map(int, ITERATION.findall(text)))


@dataclass
class Ending:
    """What a finished training leaves.

    Attributes:
        said_best: file and score of the best checkpoint, as the tool names them at its end.
        note: the file that ``last_checkpoint`` names.
        files: names of the checkpoints.
        leftovers: names of temporary files, anywhere.
        best: the score that each best checkpoint holds of itself.
        scores: by iteration, of all validations that the training and its parts have logged.
        weights: of the last and the best checkpoint.
    """

    said_best: tuple[str, str]
    note: str
    files: list[str]
    leftovers: list[str]
    best: dict[str, float]
    scores: dict[int, float]
    weights: dict[str, dict[str, torch.Tensor]]

    @classmethod
    def of(cls, work_dir: Path, text: str) -> "Ending":
        note = Path((work_dir / "last_checkpoint").read_text()).name
        stored = {path.name: _stored(path) for path in (work_dir / note, *work_dir.glob("best_*.pth"))}
        return cls(
            said_best=(SAID_BEST.findall(text) or [("", "")])[-1],
            note=note,
            files=sorted(path.name for path in work_dir.glob("*.pth")),
            leftovers=sorted(path.name for path in work_dir.rglob("*") if path.suffix in (".part", ".tmp")),
            best={
                name: content["message_hub"]["runtime_info"]["best_score"]
                for name, content in stored.items()
                if name.startswith("best_")
            },
            scores=dict(_scores(work_dir)),
            weights={name: content["state_dict"] for name, content in stored.items()},
        )

    def untrue(self, last: int, interval: int) -> list[str]:
        """What this training of ``last`` iterations says of itself that its own validations contradict."""
        found = []
        if self.note != f"iter_{last}.pth":
            found.append(f"last checkpoint {self.note}")
        if self.leftovers:
            found.append(f"leftovers: {', '.join(self.leftovers)}")
        many = [name for name in self.files if name.startswith("iter_")]
        if len(many) > 2:  # tiny.py's max_keep_ckpts
            found.append(f"leftovers: {', '.join(many)}")
        never = [step for step in range(interval, last + 1, interval) if step not in self.scores]
        if never:
            found.append(f"never validated: {never}")
        step = max(self.scores, key=lambda step: (self.scores[step], -step))  # the first of equal ones
        true = {f"best_mIoU_iter_{step}.pth": self.scores[step]}
        if {name: round(score, 4) for name, score in self.best.items()} != {
            name: round(score, 4) for name, score in true.items()
        }:
            found.append(f"best checkpoints {self.best}, true is {true}")
        elif self.said_best != (*true, f"{self.scores[step]:.4g}"):
            found.append(f"calls {self.said_best} the best, true is {true}")
        return found

    def unlike(self, other: "Ending", statistics: bool = True) -> list[str]:
        """In what this one differs from ``other``, which nothing has disturbed.

        Args:
            other: what to compare with.
            statistics: whether the statistics of batch norms have to agree, too, and the scores with them.
        """
        for name, theirs in other.weights.items():
            if not statistics and name.startswith("best_"):
                continue
            ours = self.weights.get(name, {})
            kept = [key for key in theirs if statistics or "running_" not in key]
            unequal = [key for key in kept if key not in ours or not torch.equal(ours[key], theirs[key])]
            if unequal:
                return [f"not as without a fault: {len(unequal)} of {len(kept)} weights differ in {name}"]
        if statistics and self.scores != other.scores:
            return [f"not as without a fault: the scores are {self.scores} instead of {other.scores}"]
        return []


def _scores(work_dir: Path) -> list[tuple[int, float]]:
    lines = [
        line for path in sorted(work_dir.glob("*/vis_data/*.json")) for line in path.read_text().splitlines()
    ]
    found = []
    for line in lines:
        entry = _document(line)
        if "mIoU" in entry:
            found.append((entry["step"], entry["mIoU"]))
    return found


def _document(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:  # the last line of a run that was killed
        return {}


def _stored(path: Path) -> dict[str, Any]:
    # danseg has written it a moment ago: it may hold NumPy's numbers.
    return torch.load(path, map_location="cpu", weights_only=False)
