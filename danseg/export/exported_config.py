"""The config of a trained network that one file carries, exported ones too."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from danseg.engine.config.config_file import load_config, with_options
from danseg.engine.config.stored_config import checked_config, values_of_text
from danseg.engine.config.type_names import type_name
from danseg.errors import UserError
from danseg.export.description import Description
from danseg.export.read_description import EXPORT, read_description
from danseg.model_files import is_exported_file


def trained_config(
    source: str | Path, options: Mapping[str, Any] | None = None, data: str | None = None
) -> Config:
    """The config of a trained network.

    Args:
        source: a config, or a file that carries one: a checkpoint, or an exported network.
        options, data: as for :func:`danseg.engine.config.config_file.load_config`.

    Returns:
        The config. That of an exported network has the file itself in the place of backbone and head, so that
        building its model opens it.

    Raises:
        UserError: as ``load_config``; an exported file is damaged, or cannot be run as its config asks.
    """
    if not is_exported_file(source):
        return load_config(source, options, data)
    description = read_description(source)
    values = values_of_text(description.config, source)
    trained = values.get("model")
    if not isinstance(trained, dict):
        raise UserError(
            f"the config inside {source} has no model, a dict; export the network again: {EXPORT}"
        )
    values["model"] = _model(trained, description, Path(source))
    # The network's own classes, and what registers them, are not needed: it is in the file.
    values.pop("custom_imports", None)
    if description.input.dtype == "uint8":
        for part in ("test_dataloader", "tta_pipeline"):
            _leave_out_normalising(values.get(part))
    return with_options(checked_config(values, description.config, source), options, data)


def _model(trained: dict[str, Any], description: Description, path: Path) -> dict[str, Any]:
    """What stands in the place of the trained ``model``: the file, and what is done before and after it."""
    output = description.output
    preprocessor = dict(trained.get("data_preprocessor") or {"type": "SegDataPreProcessor"})
    if description.input.dtype == "uint8":
        if any((preprocessor.get("test_cfg") or {}).values()):
            raise UserError(
                f"{path} normalises inside, and its config pads pictures after that "
                "(model.data_preprocessor.test_cfg); export without --with-preprocessing"
            )
        preprocessor.update(mean=None, std=None, bgr_to_rgb=False, rgb_to_bgr=False)
        preprocessor["bgr_to_rgb"] = description.input.channels == "RGB"  # pictures are loaded as BGR
    test_cfg = trained.get("test_cfg") or dict(mode="whole")
    if output.name == "labels" and test_cfg.get("mode") == "slide":
        raise UserError(
            f"{path} gives labels alone, and its config averages the logits of windows "
            "(model.test_cfg.mode='slide'); export without --labels"
        )
    classes = len(description.classes)
    return dict(
        type="ExportedLabels" if output.name == "labels" else "LeanEncoderDecoder",
        data_preprocessor=preprocessor,
        backbone=dict(
            type="ExportedNetwork", file=os.path.abspath(path), in_channels=_channels(trained, description)
        ),
        decode_head=dict(
            type="ExportedHead",
            num_classes=classes,
            out_channels=classes if output.threshold is None else 1,
            align_corners=output.align_corners,
            threshold=output.threshold,
        ),
        test_cfg=test_cfg,
    )


def _channels(trained: dict[str, Any], description: Description) -> int:
    backbone = trained.get("backbone")
    told = backbone.get("in_channels") if isinstance(backbone, dict) else None
    return told or len(description.input.mean or ()) or 3


def _leave_out_normalising(part: Any) -> None:
    """Take ``Normalize`` out of the pipelines in a part of a config whose network does it inside."""
    if isinstance(part, list):
        part[:] = [one for one in part if not (isinstance(one, dict) and type_name(one) == "Normalize")]
    for one in part.values() if isinstance(part, dict) else part if isinstance(part, (list, tuple)) else ():
        _leave_out_normalising(one)
