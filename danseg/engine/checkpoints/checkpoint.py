"""Read checkpoints whole and without running code from them, and load them only into a model that they fit.

A checkpoint is a pickle, and unpickling can run any code. Files are read only with torch's restricted
unpickler, which refuses everything except tensors, containers and a short list of types. Before that, the
checksums of the archive that holds the pickle and the tensors are verified. Files of safetensors hold nothing
but tensors.
"""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from danseg.engine.checkpoints.checkpoint_bytes import check_bytes, is_safetensors
from danseg.engine.checkpoints.checkpoint_form import check_form
from danseg.engine.checkpoints.content_hash import check_content
from danseg.engine.checkpoints.downloads import local_file
from danseg.engine.hooks.non_finite_loss import non_finite_names
from danseg.errors import UserError, reason_of
from danseg.io.words import listed

NOTES = "danseg"  # the name of a checkpoint's ``meta``, as JSON, among the notes of a file of safetensors


def safe_globals() -> list[Any]:
    """The types that mmengine's training checkpoints hold besides tensors, for their scalar histories."""
    core = np._core if hasattr(np, "_core") else np.core
    scalar_types = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool")
    return [
        HistoryBuffer,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(name)) for name in scalar_types},
        # HistoryBuffer's statistics are stored by name, as getattr(HistoryBuffer, "mean").
        (_method_of_history_buffer, "builtins.getattr"),
    ]


def _method_of_history_buffer(owner: Any, name: str) -> Any:
    """``getattr``, restricted to what checkpoints need: the public methods of HistoryBuffer."""
    if owner is not HistoryBuffer or name.startswith("_"):
        raise pickle.UnpicklingError(f"a checkpoint may not ask for {owner!r}.{name}")
    return getattr(owner, name)


def read_checkpoint(source: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint without running any code from it.

    Args:
        source: a file that torch has written, one of safetensors, or an address, as
            :func:`danseg.engine.checkpoints.downloads.local_file` takes.
        map_location: the device of its tensors.

    Returns:
        The checkpoint as a dict with at least ``state_dict``. A bare dict of tensors is wrapped in one, and
        so are those of safetensors, whose notes are left out but for danseg's own: they are its ``meta``. A
        config stored in its ``meta`` stays text.

    Raises:
        UserError: the file is missing, empty, cut off, damaged, unreadable, not a checkpoint or not to be
            fetched, or it holds objects other than tensors, containers and scalars, or an entry is of the
            wrong type, or it was changed after it was published.
    """
    checkpoint = read_content(source, map_location)
    if "state_dict" not in checkpoint:
        if not checkpoint or not all(torch.is_tensor(value) for value in checkpoint.values()):
            raise UserError(f"checkpoint {source} has no 'state_dict'; its keys are {listed(checkpoint)}")
        checkpoint = {"state_dict": checkpoint, "meta": {}}
    check_form(checkpoint, source)
    return dict(checkpoint)


def read_content(source: str | Path, map_location: str | torch.device | None = "cpu") -> Mapping[str, Any]:
    """Like :func:`read_checkpoint`, but give the dict as the file holds it, in whatever form."""
    path = local_file(source)
    try:
        path = path.expanduser()
        if is_safetensors(check_bytes(path)):
            checkpoint = _read_safetensors(path, map_location)
        else:
            with torch.serialization.safe_globals(safe_globals()):
                checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL|global)\s+([\w.]+)", str(error))
        what = f": it holds {refused[1]}" if refused else ""
        raise UserError(
            f"checkpoint {path} is refused{what}, which is not data; loading it could run code. "
            "Keep its state_dict only: in a place where that does no harm, load it and torch.save() "
            "a dict of its tensors"
        ) from error
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {reason_of(error)}") from error
    except Exception as error:  # damaged bytes make the readers raise errors of any kind
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"checkpoint {path} is damaged and cannot be read: {reason}") from error
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"checkpoint {path} holds a {type(checkpoint).__name__}, not a dict of weights")
    check_content(checkpoint, source)
    if str(source).startswith("mmcls://"):
        return {"state_dict": _backbone(checkpoint)}
    return checkpoint


def _backbone(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone's weights of a classifier of mmcls, as mmengine takes them from it."""
    weights = checkpoint.get("state_dict", checkpoint)
    start = "backbone."
    return {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}


def _read_safetensors(path: Path, map_location: str | torch.device | None) -> dict[str, Any]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise UserError(
            f"checkpoint {path} is a file of safetensors, which cannot be imported ({error}); "
            "install it with pip install safetensors"
        ) from error
    with safe_open(path, framework="pt", device=str(map_location or "cpu")) as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        notes = (file.metadata() or {}).get(NOTES)
    return weights if notes is None else {"state_dict": weights, "meta": json.loads(notes)}


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint, without the prefix that DistributedDataParallel adds."""
    weights = checkpoint["state_dict"]
    if weights and all(name.startswith("module.") for name in weights):
        return {name.removeprefix("module."): value for name, value in weights.items()}
    return dict(weights)


def load_weights(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint into the model that it was made with.

    Args:
        model: the segmentor, which a DDP wrapper may surround.
        path: what :func:`read_checkpoint` reads.

    Returns:
        The checkpoint.

    Raises:
        UserError: the file cannot be read, or a parameter is missing, unexpected, of another shape or kind
            or not finite. In these cases nothing is loaded.
    """
    checkpoint = read_checkpoint(path)
    load_state(model, checkpoint, path)
    return checkpoint


def load_state(model: nn.Module, checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Load ``checkpoint``, already read from ``path``, into ``model``, strictly as :func:`load_weights`."""
    model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    weights = weights_of(checkpoint)
    check_values(model, weights, path)
    problem = describe_mismatch(model, weights)
    if problem:
        classes = ((checkpoint.get("meta") or {}).get("dataset_meta") or {}).get("classes")
        trained_on = f" It was trained for {len(classes)} classes." if classes else ""
        raise UserError(
            f"checkpoint {path} does not fit this config's model.{trained_on}\n{problem}\n"
            "Use the config that the checkpoint was trained with; training writes it beside the checkpoint. "
            "One for a data set of your own (*_folder.py) needs the same --data."
        )
    model.load_state_dict(weights, strict=True)


def check_values(model: nn.Module, weights: Mapping[str, Any], path: str | Path) -> None:
    """Check that those of ``weights``, read from ``path``, that ``model`` has are numbers that it can use.

    Raises:
        UserError: some are no tensors, integer or complex where the model has floats, or not finite.
    """
    own = model.state_dict()
    plain: dict[str, torch.Tensor] = {}
    no_tensors, other_kind = [], []
    for name, value in weights.items():
        if name not in own:
            continue
        if not torch.is_tensor(value) or value.layout != torch.strided or value.is_meta:
            no_tensors.append(name)
        # Averaged weights may hold BatchNorm's counter as a float, and no output depends on it.
        elif value.is_complex() or (
            _is_float(value) != _is_float(own[name]) and not name.endswith("num_batches_tracked")
        ):
            types = [str(one.dtype).removeprefix("torch.") for one in (value, own[name])]
            other_kind.append(f"{name} ({types[0]} instead of {types[1]})")
        else:
            plain[name] = value
    problems = {
        "are not plain tensors": no_tensors,
        "are numbers of another kind than the model's": other_kind,
        "hold NaN or infinity": non_finite_names(plain),
    }
    found = [f"{len(names)} weights {what}: {listed(names)}" for what, names in problems.items() if names]
    if found:
        raise UserError(
            f"checkpoint {path} cannot be used, {'; '.join(found)}. Use an earlier or another file"
        )


def _is_float(value: torch.Tensor) -> bool:
    return value.is_floating_point() and value.element_size() > 1  # torch computes with no 8-bit floats


def describe_mismatch(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> str:
    """Describe how ``weights`` differ from the parameters of ``model``; '' if they agree."""
    own = model.state_dict()
    # Weights saved by old PyTorch lack BatchNorm's counter, and no output depends on it.
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in own]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in weights
        and weights[name].shape != own[name].shape
        # The papers' authors store gamma.scale as one element; torch loads that into a 0-d parameter.
        and not (own[name].dim() == 0 and weights[name].shape == (1,))
    ]
    lines = []
    if missing:
        lines.append(
            f"  {len(missing)} of {len(own)} parameters missing in the checkpoint: {listed(missing)}"
        )
    if unexpected:
        lines.append(f"  {len(unexpected)} parameters unknown to the model: {listed(unexpected)}")
    if reshaped:
        lines.append(f"  {len(reshaped)} parameters of another shape: {listed(reshaped)}")
    return "\n".join(lines)
