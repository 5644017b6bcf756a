"""Read what trainings have logged, as curves over their iterations; starts of one training are joined.

A training that was stopped and resumed has a folder of logs for each start. It goes on from a checkpoint, so
that the last iterations before the stop were done again: their first values belong to no state of the network
that is left. A start therefore replaces what earlier ones have logged from its first iteration on.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danseg.engine.validation_record import RECORD, read_record
from danseg.errors import UserError, reason_of
from danseg.io.source_files import read_file

LOSS, RATE, SCORE = "loss", "learning rate", "mIoU in % (validation)"
_LOG = "vis_data/scalars.json"
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Training:
    """The curves of one training.

    Attributes:
        folder: its work dir, as it was given.
        starts: how often it was started.
        curves: (iteration, value) of :data:`LOSS`, :data:`RATE` and :data:`SCORE`, in order.
    """

    folder: str
    starts: int
    curves: dict[str, Points]


def read_training(folder: str | Path) -> Training:
    """Read the logs of a work dir: ``validations.json``, and ``vis_data/scalars.json`` of every start.

    mIoU comes from the former where it is there, as it is for danseg's trainings.

    Raises:
        UserError: there is no such folder, it holds no log of a training, or a log cannot be read.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{folder} is no folder; --runs takes the work dirs of trainings")
    starts = [(log, _entries(log)) for log in sorted([*path.glob(_LOG), *path.glob(f"*/{_LOG}")])]
    starts = [(log, entries) for log, entries in starts if any("loss" in one for one in entries)]
    if not starts:
        raise UserError(
            f"{folder} holds no log of a training with a loss (<time>/{_LOG}); --runs takes the work dirs of "
            "trainings"
        )
    curves: dict[str, dict[int, float]] = {LOSS: {}, RATE: {}, SCORE: {}}
    for _, entries in starts:
        begin = next(entry["step"] for entry in entries if "loss" in entry)
        for points in curves.values():
            for iteration in [one for one in points if one >= begin]:
                del points[iteration]
        _add(curves, entries)
    if _is_readable_record(path / RECORD):
        curves[SCORE] = {
            one["iteration"]: float(one["mIoU"]) for one in read_record(path) if _is_number(one.get("mIoU"))
        }
    found = {kind: sorted(points.items()) for kind, points in curves.items()}
    return Training(str(folder), len(starts), found)


def _add(curves: dict[str, dict[int, float]], entries: Iterable[dict[str, Any]]) -> None:
    trained = 0
    for entry in entries:
        if "loss" in entry:
            trained = entry["step"]
            values = {LOSS: entry["loss"], RATE: entry.get("lr", entry.get("base_lr"))}
        else:
            # Validations of a training by epochs are logged with the number of the epoch.
            values = {SCORE: entry.get("mIoU")}
        for kind, value in values.items():
            if _is_number(value):
                curves[kind][max(trained, entry["step"])] = float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _entries(log: Path) -> list[dict[str, Any]]:
    """The lines of a log that have a step; a last line that was cut off by a kill is left out."""
    lines = _text(log).split("\n")
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line) if line.strip() else {}
        except ValueError as error:
            if number == len(lines):
                break  # no line break follows
            raise _unreadable(log, f"line {number}: {error}") from error
        if not isinstance(entry, dict):
            raise _unreadable(log, f"line {number} is no dict")
        if isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


def _is_readable_record(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        record = json.loads(_text(path))
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(record, list):
        raise _unreadable(path, "it is no list")
    return True


def _text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(path, reason_of(error)) from error


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(f"the log {path} cannot be read: {why}; mend it, move it away, or leave that run out")
