"""The folder that a run writes to."""

import os
from pathlib import Path

from mmengine.config import Config

from danseg.errors import UserError


def choose_work_dir(config: Config, asked: str | None) -> str:
    """The folder asked for on the command line, else the config's, else ``work_dirs/<config>``."""
    return asked or config.get("work_dir") or f"work_dirs/{Path(config.filename).stem}"


def make_work_dir(path: str) -> None:
    """Make the work dir, or say why it cannot be one."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f"the work dir {path} cannot be made: {error}; choose --work-dir") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"the work dir {path} is not writable; choose --work-dir")
