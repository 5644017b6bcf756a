"""mmcv's criss-cross attention, also where mmcv has no compiled operators."""

import importlib.util
from pathlib import Path

from torch import nn

from danseg.errors import UserError


def plain_criss_cross() -> type[nn.Module]:
    """mmcv's class, from its file by itself: it is plain PyTorch, but its package needs compiled operators.

    Raises:
        UserError: this mmcv does not have the file.
    """
    import mmcv
    from mmengine.registry import MODELS

    path = Path(mmcv.__file__).with_name("ops") / "cc_attention.py"
    if not path.is_file():
        raise UserError(f"this mmcv has no {path.name}: leave criss-cross attention out")
    registered = MODELS.module_dict.pop("CrissCrossAttention", None)  # each load registers it
    spec = importlib.util.spec_from_file_location("mmcv_cc_attention", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if registered is not None:
        MODELS.module_dict["CrissCrossAttention"] = registered
    return module.CrissCrossAttention
