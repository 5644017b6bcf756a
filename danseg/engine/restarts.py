"""Whether a launcher has started a run again by itself, with the command of its first start."""

import os

_COUNTS = {"torchrun": "TORCHELASTIC_RESTART_COUNT", "Slurm": "SLURM_RESTART_COUNT"}


def restarted_by() -> str | None:
    """The launcher that has started this run again after it had ended; None at the first start."""
    for launcher, variable in _COUNTS.items():
        if os.environ.get(variable, "0").strip("0"):
            return launcher
    return None
