"""Whether a config's model is an exported network, which holds its own weights."""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from danseg.engine.config.type_names import type_name
from danseg.errors import UserError
from danseg.model_files import is_exported_file


def runs_exported(config: Config, checkpoint: str | Path | None) -> bool:
    """Whether the model of a config runs the exported network that stands in a checkpoint's place.

    Args:
        config: the whole config.
        checkpoint: what is named as the weights.

    Raises:
        UserError: it is an exported network, and the config is not the one that it carries.
    """
    if checkpoint is None or not is_exported_file(checkpoint):
        return False
    model: Any = config.model.get("module") or config.model
    backbone = model.get("backbone") or {}
    if type_name(backbone) != "ExportedNetwork" or backbone.get("file") != os.path.abspath(checkpoint):
        raise UserError(
            f"{checkpoint} is an exported network, which carries its config and its weights: name it alone, "
            f"without the config {config.filename or ''}".rstrip()
        )
    return True
