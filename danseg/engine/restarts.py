"""Whether a launcher has started a training again by itself, with the command of its first start.

Such a start goes on with what the first one has begun, and with nothing else: if that one ended before its
training began, the checkpoints in the folder are of an earlier training. So each training leaves a note of
its launch in its work dir.
"""

import os
from pathlib import Path

from danseg.io.files import whole_file
from danseg.io.processes import boot, born

_COUNTS = {"torchrun": "TORCHELASTIC_RESTART_COUNT", "Slurm": "SLURM_RESTART_COUNT"}
_NOTE = ".launch"


def restarted_by(work_dir: str | os.PathLike) -> str | None:
    """The launcher that has started the training of ``work_dir`` again; None at its first start."""
    try:
        began = Path(work_dir, _NOTE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    for launcher, variable in _COUNTS.items():
        if os.environ.get(variable, "0").strip("0") and began == _launch(launcher):
            return launcher
    return None


def note_launch(work_dir: str | os.PathLike) -> None:
    """Note that a training begins in ``work_dir``; do nothing without a launcher that starts again.

    Raises:
        UserError: the note cannot be written.
    """
    for launcher, variable in _COUNTS.items():
        if variable in os.environ or (launcher == "Slurm" and "SLURM_JOB_ID" in os.environ):
            with whole_file(Path(work_dir, _NOTE)) as part:
                part.write_text(_launch(launcher), encoding="utf-8")
            return


def _launch(launcher: str) -> str:
    """What all starts by one launcher have in common, and those by no other one."""
    if launcher == "Slurm":
        return f"Slurm {os.environ.get('SLURM_JOB_ID')}"
    agent = os.getppid()  # torchrun's own process, whose children are the processes of a training
    return f"torchrun {boot()} {agent} {born(agent)}"
