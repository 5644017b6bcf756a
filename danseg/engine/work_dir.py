"""What a training finds in its folder: the checkpoints of an earlier one, and what a killed one has left."""

import contextlib
import datetime
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from danseg.engine.validation_record import RECORD, read_record, write_record
from danseg.errors import UserError, reason_of
from danseg.io.files import make_folder, numbered
from danseg.io.processes import alive, started
from danseg.io.words import listed

NOTE = "last_checkpoint"
NAMES = {"iter_{}.pth": "iter", "epoch_{}.pth": "epoch"}  # of checkpoints; what their number counts


@dataclass(frozen=True)
class Saved:
    """A checkpoint, as its name describes it.

    Attributes:
        path: the file.
        unit: "iter" or "epoch".
        count: how many of these it was trained.
        metric: the metric, as it is written in the name, that it has the best score of; None if it was saved
            because its turn had come.
    """

    path: Path
    unit: str
    count: int
    metric: str | None

    def newer_than(self, progress: Mapping[str, int]) -> bool:
        return self.count > progress[self.unit]


def saved_in(folder: str | os.PathLike, names: Mapping[str, str] = NAMES) -> list[Saved]:
    """The checkpoints in a folder, those of an interval before the best ones, each from the oldest on."""
    found = []
    for path in Path(folder).glob("*.pth"):
        for name, unit in names.items():
            start, _, end = name.partition("{}")
            match = re.fullmatch(rf"(?:best_(.+)_)?{re.escape(start)}(\d+){re.escape(end)}", path.name)
            if match:
                found.append(Saved(path, unit, int(match[2]), match[1]))
                break
    return sorted(found, key=lambda one: (one.metric or "", one.count))


def checkpoint_folders(config: Config) -> dict[Path, dict[str, str]]:
    """The folders that a training writes checkpoints to, the work dir first, with their names as in NAMES."""
    work_dir = Path(config.work_dir)
    folders = {work_dir: dict(NAMES)}
    hooks = [*(config.get("default_hooks") or {}).values(), *(config.get("custom_hooks") or ())]
    for hook in hooks:
        if not isinstance(hook, dict) or hook.get("type") != "SafeCheckpointHook":
            continue
        out_dir = str(hook.get("out_dir") or config.work_dir)
        if "://" in out_dir:
            continue
        elsewhere = out_dir != config.work_dir
        folder = Path(out_dir, work_dir.name) if elsewhere else work_dir  # as mmengine's hook has it
        names = folders.setdefault(folder, dict(NAMES))
        if hook.get("filename_tmpl"):
            names[hook["filename_tmpl"]] = "epoch" if hook.get("by_epoch", True) else "iter"
    return folders


def prepare_folders(
    config: Config,
    resumed: tuple[str, Mapping[str, Any]] | None,
    log: Callable[[str], None],
    *,
    refuse: bool,
) -> None:
    """Leave in the folders of a training nothing that is of another one, or that it would write over.

    Args:
        config: the training's.
        resumed: path and content of the checkpoint that it continues from; None if it starts anew.
        log: where to say what is moved.
        refuse: whether what an earlier training has left is refused, where this one starts anew.

    Raises:
        UserError: it is refused, or cannot be moved.
    """
    folders = checkpoint_folders(config)
    if resumed:
        path, checkpoint = resumed
        meta = checkpoint.get("meta") or {}
        set_aside_newer(folders, path, {unit: meta.get(unit) or 0 for unit in ("iter", "epoch")}, log)
        return
    if refuse:
        refuse_earlier(folders)
    set_aside(folders, log)


def refuse_earlier(folders: Mapping[Path, Mapping[str, str]]) -> None:
    """Refuse to start a training where an earlier one has left checkpoints.

    Raises:
        UserError: one of the folders holds some.
    """
    for folder, names in folders.items():
        found = saved_in(folder, names)
        if found:
            raise UserError(
                f"{folder} holds the checkpoints of an earlier training: "
                f"{listed(one.path.name for one in found)}. Continue that with --resume, choose another "
                "--work-dir, or begin again with --start-over, which moves them to a folder beside"
            )


def set_aside(folders: Mapping[Path, Mapping[str, str]], log: Callable[[str], None]) -> None:
    """Move all that an earlier training has left to ``earlier_<time>`` in its folder, and say so.

    Raises:
        UserError: a file cannot be moved.
    """
    for folder, names in folders.items():
        _move(folder, [one.path for one in saved_in(folder, names)], log)


def set_aside_newer(
    folders: Mapping[Path, Mapping[str, str]],
    resumed: str | os.PathLike,
    progress: Mapping[str, int],
    log: Callable[[str], None],
) -> None:
    """Move what the checkpoint that a training continues from does not lead to, as :func:`set_aside` does.

    These are newer checkpoints, damaged or passed over, and the best ones since. Where there are none, a
    newer best one is that of a validation which comes again, and stays. Where ``resumed`` lies elsewhere, the
    folders hold another training, and all goes.

    Args:
        folders: from :func:`checkpoint_folders`.
        resumed: the checkpoint.
        progress: what it has done, in "iter" and "epoch".
        log: where to say it.

    Raises:
        UserError: a file cannot be moved.
    """
    if Path(resumed).resolve().parent not in {folder.resolve() for folder in folders}:
        set_aside(folders, log)
        return
    newer = {
        folder: [one for one in saved_in(folder, names) if one.newer_than(progress)]
        for folder, names in folders.items()
    }
    if all(one.metric for found in newer.values() for one in found):
        return
    for folder, found in newer.items():
        _move(folder, [one.path for one in found], log, until=progress["iter"])


def _move(folder: Path, paths: Sequence[Path], log: Callable[[str], None], until: int | None = None) -> None:
    """Move files to a new folder in ``folder``, with the note, and the record but of the first iterations."""
    now = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    aside = next(folder / name for name in numbered(f"earlier_{now}") if not (folder / name).exists())
    record = read_record(folder) if until is not None else []
    kept = [one for one in record if one["iteration"] <= (until or 0)]
    others = [folder / NOTE] if kept else [folder / NOTE, folder / RECORD]
    paths = [*paths, *(path for path in others if path.is_file())]
    if not paths and kept == record:
        return
    if until is not None:
        paths.reverse()  # the numbered ones last: as long as one is there, the next training finishes this
    make_folder(aside)
    if kept != record and kept:
        write_record(aside, record)
        write_record(folder, kept)
    for path in paths:
        try:
            os.rename(path, aside / path.name)
        except OSError as error:
            raise UserError(f"cannot move {path} to {aside}: {reason_of(error)}") from error
    log(f"moved to {aside}: {listed(path.name for path in paths)}")


_PART = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.part")  # as `whole_file` names them


def clear_leftovers(folder: str | os.PathLike) -> None:
    """Delete what processes that are dead were writing in a folder and all that is in it.

    It may be as large as a checkpoint. A file whose process lives is of another tool.
    """
    for path in Path(folder).rglob(".*.part"):
        with contextlib.suppress(OSError):
            if not _is_being_written(path):
                path.unlink()


def _is_being_written(path: Path) -> bool:
    match = _PART.fullmatch(path.name)
    if match is None:
        return True  # not one of ours
    pid = int(match[1])
    if pid == os.getpid() or not alive(pid):
        return False
    return started(pid) <= path.stat().st_mtime + 2  # else the process id was given again
