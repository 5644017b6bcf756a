"""Build mmseg's own form of a network, to compare with."""

import copy
from collections.abc import Mapping
from typing import Any

import mmseg.models
from mmengine.model import revert_sync_batchnorm
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS
from torch import nn

from danseg.apis.model import built_model
from danseg.engine.config.options import drop_pretrained
from danseg.engine.config.signatures import parameters
from danseg.errors import UserError
from danseg.heads.counterparts import HEADS, SEGMENTORS

_THEIRS = {**HEADS, **SEGMENTORS}


def counterpart(model: BaseSegmentor) -> BaseSegmentor:
    """The network of a model in mmseg's own classes, with the same weights, on the same device.

    Args:
        model: from :func:`danseg.apis.load_model`; ``model.cfg`` is its config.

    Raises:
        UserError: mmseg has no such network, or cannot build it here; the message says which part it lacks.
    """
    config = mmseg_form(model.cfg.model)
    drop_pretrained(config)
    try:
        theirs = revert_sync_batchnorm(built_model(config))
    except (RuntimeError, AssertionError, ImportError) as error:
        lack = "mmcv's compiled operators, which are not there" if "mmcv" in str(error) else "what it lacks"
        kind = _name(_heads(config)[0]["type"])
        raise UserError(f"mmseg's {kind} needs {lack} ({error})") from error
    ours = next((one for one in theirs.modules() if _is_ours(type(one))), None)
    if ours is not None:
        raise UserError(f"mmseg has no counterpart of {type(ours).__name__}")
    try:
        theirs.load_state_dict(model.state_dict())
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise UserError(f"mmseg's network has other parameters: {said}") from error
    return theirs.to(next(model.parameters()).device).eval()


def mmseg_form(model: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a network with mmseg's classes in the place of danseg's.

    Args:
        model: ``model`` of a config.

    Raises:
        UserError: mmseg has no such class, or it cannot do what an argument asks for.
    """
    config = copy.deepcopy(dict(model))
    for part in (config, *_heads(config)):
        built = MODELS.get(part["type"]) if isinstance(part["type"], str) else part["type"]
        if built is None or not _is_ours(built):
            continue
        # danseg.drop_in's classes bear mmseg's names.
        theirs = getattr(mmseg.models, _THEIRS.get(built.__name__, built.__name__), None)
        if theirs is None:
            raise UserError(f"mmseg has no counterpart of {built.__name__}")
        known, own = parameters(theirs)[0], parameters(built)[0]
        for name in set(part) - set(known) - {"type"}:
            if name not in own or part[name] != own[name].default:
                raise UserError(f"mmseg's {theirs.__name__} has no {name}, which is {part[name]!r} here")
            del part[name]
        part["type"] = theirs
    return config


def _heads(model: Mapping[str, Any]) -> list[dict]:
    """The configs of decode heads and auxiliary heads; several of each may stand in a list."""
    found = []
    for heads in (model.get("decode_head"), model.get("auxiliary_head")):
        found += list(heads) if isinstance(heads, (list, tuple)) else [heads] if heads else []
    return found


def _is_ours(kind: type[nn.Module]) -> bool:
    return kind.__module__.partition(".")[0] == "danseg"


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else kind.__name__
