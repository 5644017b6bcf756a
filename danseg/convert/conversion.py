"""Convert a checkpoint of another project into one of danseg's, with its config, or say what does not fit."""

import hashlib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

from danseg.convert.converted import Converted
from danseg.convert.converted_config import check_asked, config_text, find_base, settings_over
from danseg.convert.foreign_file import Absent, ForeignFile, Tensors, read_foreign
from danseg.convert.from_ccnet import CCNET
from danseg.convert.from_danet import DANET
from danseg.convert.from_epsanet import EPSANET
from danseg.convert.from_mmseg import MMSEG
from danseg.convert.from_resnest import RESNEST
from danseg.convert.from_semseg import SEMSEG
from danseg.convert.from_timm import TIMM
from danseg.convert.from_torchvision import TORCHVISION
from danseg.convert.source import Network, Source
from danseg.engine.checkpoints.checkpoint import check_values, describe_mismatch
from danseg.engine.checkpoints.torchvision_names import Prefixes, prefix_of
from danseg.engine.config.config_file import load_config
from danseg.engine.config.options import drop_pretrained
from danseg.engine.config.stored_config import config_to_text
from danseg.errors import UserError
from danseg.io.files import make_folder, whole_file
from danseg.io.source_files import read_file
from danseg.io.words import counted, listed
from danseg.mmseg_import import building_quietly
from danseg.version import __version__

SOURCES: dict[str, Source] = {
    "mmseg": MMSEG,
    "danet": DANET,
    "ccnet": CCNET,
    "semseg": SEMSEG,
    "torchvision": TORCHVISION,
    "timm": TIMM,
    "epsanet": EPSANET,
    "resnest": RESNEST,
}


def convert(
    source: str,
    path: str | Path,
    out: str | Path,
    config: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Converted:
    """Convert a checkpoint, and write the config that its network needs beside it.

    Args:
        source: the layout of the file, a name of :data:`SOURCES`.
        path: the file, or its address. Nothing that it holds is run.
        out: the checkpoint to write (.pth); the config has its name and ``.py``.
        config: what the new config stands on: a recipe's name or a config file. By default the recipe that
            comes nearest, by network, depth and number of classes.
        options: entries of the new config, by dotted keys.

    Raises:
        UserError: the file cannot be read, is of another layout, has a tensor that no part of the network
            takes or lacks one that the network has, or ``out`` exists. Nothing is written then.
        ValueError: there is no such source.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    out, options = _target(out), dict(options or {})
    file = read_foreign(path)
    layout = SOURCES[source]
    _check_layout(source, file)
    prefixes = layout.prefixes(file.weights)
    renamed, unknown, left_out = _renamed(file.weights, prefixes)
    try:
        network = layout.understand(Tensors(renamed), file.meta)
    except Absent as absent:
        raise _not_whole(file, source, [_missing([str(absent.args[0])], prefixes)], unknown) from absent
    except UserError as error:
        raise UserError(f"{file.path} cannot be converted: {error}") from error
    check_asked(network, options, file.path)
    config_file = out.with_suffix(".py")
    base = find_base(network, config, out.parent)
    settings = settings_over(base, network, options)
    backbone = network.classes is None
    if backbone:
        settings.setdefault("model", {})["pretrained"] = str(out.resolve())
    header = _header(file.path.name, source, network, options)
    make_folder(out.parent, "the folder of --out")
    with whole_file(config_file, suffix=".py") as part:
        part.write_text(config_text(base, settings, header), encoding="utf-8")
        whole = load_config(part)
        part_network = _network(whole, backbone)
        start = "backbone." if backbone else ""
        weights = network.change(renamed)
        weights = {name.removeprefix(start): value for name, value in weights.items()}
        _check_fit(part_network, weights, file, source, prefixes, unknown, start)
        weights = _complete(part_network, weights)
        with whole_file(out) as written:
            torch.save({"state_dict": weights, "meta": _meta(file, source, network, whole)}, written)
    return Converted(
        out,
        config_file,
        base.name,
        settings,
        backbone,
        len(renamed),
        tuple(left_out),
        network.changed,
        tuple(one for one in network.assumed if one.partition("=")[0] not in options),
        base.dataset == "folder",
    )


def _target(out: str | Path) -> Path:
    out = Path(out)
    if out.suffix != ".pth":
        raise UserError(f"--out {out}: name a file that ends in .pth")
    for there in (out, out.with_suffix(".py")):
        if there.exists():
            raise UserError(f"{there} exists, and would be overwritten: name another --out, or move it away")
    return out


def _check_layout(source: str, file: ForeignFile) -> None:
    """Refuse a file of another layout, by its names: it looks like the one that places most of them."""
    placed = {
        name: sum(prefix_of(one, prefixes) is not None for one in file.weights)
        for name, layout in SOURCES.items()
        if layout.recognises(file.weights)
        for prefixes in [layout.prefixes(file.weights)]
    }
    others = [name for name, count in placed.items() if count == max(placed.values())]
    if source in others:
        return
    theirs = f"it has no {SOURCES[source].example}, but {listed(file.weights, 3)}"
    if others:
        which = " or ".join(f"--from {name}" for name in others)
        raise UserError(
            f"{file.path} is not in the layout of {SOURCES[source].title}: {theirs}. It looks like {which}"
        )
    raise UserError(
        f"{file.path} is not in the layout of {SOURCES[source].title}, nor of the others that --from names "
        f"({', '.join(SOURCES)}): {theirs}"
    )


def _renamed(
    weights: Mapping[str, Tensor], prefixes: Prefixes
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The weights under danseg's names; then the names that no prefix fits, and those that are left out."""
    found: dict[str, Tensor] = {}
    unknown, left_out = [], []
    for name, value in weights.items():
        old = prefix_of(name, prefixes)
        new = None if old is None else prefixes[old]
        if old is None:
            unknown.append(name)
        elif new is None:
            left_out.append(name)
        else:
            found[new + name.removeprefix(old)] = value
    return found, unknown, left_out


def _in_file(name: str, prefixes: Prefixes) -> str:
    """What the file would call one of the network's tensors."""
    theirs = {new: old for old, new in prefixes.items() if new is not None}
    ours = prefix_of(name, theirs)
    return name if ours is None else theirs[ours] + name.removeprefix(ours)


def _network(config: Config, backbone: bool) -> nn.Module:
    """The network of a config, or its backbone alone, without memory for its weights."""
    init_default_scope(config.get("default_scope") or "mmseg")
    drop_pretrained(config.model)
    with building_quietly(), torch.device("meta"):
        return MODELS.build(config.model.backbone if backbone else config.model)


def _check_fit(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    file: ForeignFile,
    source: str,
    prefixes: Prefixes,
    unknown: list[str],
    start: str,
) -> None:
    """Check that every tensor of the file is one of the network's, and the reverse."""
    check_values(network, weights, file.path)
    own = network.state_dict()
    missing = [f"{start}{n}" for n in own if n not in weights and not n.endswith("num_batches_tracked")]
    left = [*unknown, *(_in_file(f"{start}{name}", prefixes) for name in weights if name not in own)]
    reshaped = describe_mismatch(network, {name: weights.get(name, own[name]) for name in own})
    problems = [_missing(missing, prefixes)] if missing else []
    if reshaped:
        problems.append(reshaped.strip())
    if problems or left:
        raise _not_whole(file, source, problems, left)


def _missing(names: list[str], prefixes: Prefixes) -> str:
    called = [f"{_in_file(name, prefixes)} ({name})" for name in names]
    return f"{counted(len(names), 'tensor')} of the network missing in the file: {listed(called)}"


def _not_whole(file: ForeignFile, source: str, problems: list[str], left: list[str]) -> UserError:
    if left:
        shapes = [f"{n} {tuple(file.weights[n].shape)}" if n in file.weights else n for n in left]
        problems = [
            f"{counted(len(left), 'tensor')} of the file without a place: {listed(shapes)}",
            *problems,
        ]
    return UserError(
        f"{file.path} does not fit the network that --from {source} makes of it:\n"
        + "\n".join(f"  {one}" for one in problems)
        + "\nIt may be cut down, of another network, or of a variant that danseg does not have."
    )


def _complete(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in the network's order and shapes, with the counters that old norms do not have."""
    found: dict[str, Tensor] = {}
    for name, own in network.state_dict().items():
        value = weights[name] if name in weights else torch.zeros(own.shape, dtype=own.dtype)
        found[name] = value.detach().reshape(own.shape).clone()  # authors' gammas have one element
    return found


def _header(name: str, source: str, network: Network, options: Mapping[str, Any]) -> str:
    """What the converted config says at its head."""
    lines = [f"Converted from {name} in the layout of {SOURCES[source].title} by danseg {__version__}."]
    if network.changed:
        lines.append(f"Of its weights {network.changed}.")
    if assumed := [one for one in network.assumed if one.partition("=")[0] not in options]:
        lines.append(f"Assumed, as the tensors do not say it: {listed(assumed, len(assumed))}.")
    return "\n".join(line for text in lines for line in textwrap.wrap(text, 100))


def _meta(file: ForeignFile, source: str, network: Network, config: Config) -> dict[str, Any]:
    digest = hashlib.sha256(read_file(file.path)).hexdigest()
    meta: dict[str, Any] = {
        "converted_from": {"layout": source, "file": file.path.name, "sha256": digest},
        "danseg_version": __version__,
    }
    if network.dataset_meta:
        meta["dataset_meta"] = dict(network.dataset_meta)
    if network.classes is not None:
        meta["cfg"] = config_to_text(config)
    return meta
