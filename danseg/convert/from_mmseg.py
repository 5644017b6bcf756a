"""Networks of mmseg, of versions 0.x and 1.x, on its ResNets: their tensors have danseg's names already.

Their checkpoints keep the config as text, which says what the tensors do not: how corners are aligned, how
the backbone is dilated, which windows the network was tested with. It is read as data, and never run. Without
one the recipe's values are taken.
"""

from collections.abc import Collection, Mapping
from typing import Any

from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS

from danseg.convert.foreign_file import Tensors
from danseg.convert.source import Network, Source
from danseg.convert.structure import Settings, defaults, head, resnet
from danseg.engine.checkpoints.torchvision_names import Prefixes
from danseg.engine.config.stored_config import values_of_text
from danseg.errors import UserError
from danseg.heads.counterparts import HEADS

# Beginnings of recipes' names, by the type of the head.
_NETWORKS = {
    "DANetHead": "danet",
    "NonLocalHead": "nonlocal",
    "CCNetHead": "ccnet",
    "PSANetHead": "psanet",
    "GCNetHead": "gcnet",
    "ISANetHead": "isanet",
    "DNLNetHead": "dnlnet",
    "FullyConvolutionalHead": "fcn",
}
# What a head's tensors do not say and its config does.
_OF_HEADS = (
    "act_cfg align_corners compact dilation down_factor in_index mask_size mode normalization_factor "
    "psa_softmax psa_type recurrence shrink_factor temperature use_scale"
).split()
_OF_BACKBONES = "strides dilations contract_dilation multi_grid style".split()
_PARTS = ("backbone", "decode_head", "auxiliary_head")


def _recognises(names: Collection[str]) -> bool:
    return any(name.startswith("backbone.") for name in names) and any(
        name.startswith("decode_head.") for name in names
    )


def _prefixes(names: Collection[str]) -> Prefixes:
    return {part: part for part in _PARTS}


def _understand(weights: Tensors, meta: Mapping[str, Any]) -> Network:
    said = _said(meta)
    written = said.get("model") or {}
    auxiliary = weights.below("auxiliary_head")
    if any(name.split(".")[0].isdigit() for name in auxiliary):
        raise UserError("it has several auxiliary heads, of which danseg's networks have one")
    decode_head = _head(weights.below("decode_head"), written.get("decode_head"))
    model: Settings = dict(
        backbone=_backbone(resnet(weights.below("backbone")), written.get("backbone")),
        decode_head=decode_head,
        auxiliary_head=_head(auxiliary, written.get("auxiliary_head")) if auxiliary else None,
    )
    preprocessor = _preprocessor(said)
    if preprocessor:
        model["data_preprocessor"] = preprocessor
    return Network(
        name=_NETWORKS[decode_head["type"]],
        model=model,
        classes=decode_head["num_classes"],
        data=lambda dataset: _data(said),
        dataset_meta=_dataset_meta(meta),
        assumed=() if written else ("the recipe's values for all that the tensors do not say",),
    )


def _said(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The config that the checkpoint keeps, as mmseg 0.x or mmengine wrote it; empty if there is none."""
    text = meta.get("cfg") or meta.get("config")
    return values_of_text(text, "the checkpoint") if isinstance(text, str) else {}


def _head(weights: Tensors, written: Any) -> Settings:
    settings = head(weights)
    if isinstance(written, Mapping):
        kind = MODELS.get(settings["type"])
        usual = defaults(kind)
        theirs = str(written.get("type")).rpartition(".")[2]
        if theirs not in (settings["type"], HEADS.get(settings["type"])):
            raise UserError(f"its config has a {theirs}, and its tensors are those of a {settings['type']}")
        for name in _OF_HEADS:
            if name in written or name in usual:
                settings[name] = written.get(name, usual.get(name))
        if settings.get("compact") and settings["psa_type"] != "bi-direction":
            settings["swap_compact"] = True  # there mmseg's head computes the other direction
    return settings


def _backbone(settings: Settings, written: Any) -> Settings:
    if not isinstance(written, Mapping):
        return settings
    usual = defaults(ResNet)
    return settings | {name: written.get(name, usual[name]) for name in _OF_BACKBONES}


def _preprocessor(said: Mapping[str, Any]) -> Settings | None:
    """Mean, deviation and order of channels: 1.x's ``data_preprocessor``, or 0.x's ``img_norm_cfg``."""
    new = (said.get("model") or {}).get("data_preprocessor") or said.get("data_preprocessor")
    if isinstance(new, Mapping) and "mean" in new and "std" in new:
        return dict(mean=new["mean"], std=new["std"], bgr_to_rgb=bool(new.get("bgr_to_rgb", False)))
    old = said.get("img_norm_cfg")
    if isinstance(old, Mapping) and "mean" in old and "std" in old:
        return dict(mean=old["mean"], std=old["std"], bgr_to_rgb=bool(old.get("to_rgb", True)))
    return None


def _data(said: Mapping[str, Any]) -> Settings:
    found: Settings = {}
    crop = said.get("crop_size")
    if isinstance(crop, (list, tuple)) and len(crop) == 2:
        found["crop_size"] = tuple(crop)
    test_cfg = (said.get("model") or {}).get("test_cfg")
    if isinstance(test_cfg, Mapping) and test_cfg.get("mode") in ("whole", "slide"):
        found["test_cfg"] = {k: test_cfg[k] for k in ("mode", "crop_size", "stride") if k in test_cfg}
    return found


def _dataset_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Classes and colours: mmengine's ``dataset_meta``, or ``CLASSES`` and ``PALETTE`` of mmseg 0.x."""
    new = meta.get("dataset_meta") or {}
    old = {"classes": meta.get("CLASSES"), "palette": meta.get("PALETTE")}
    found = {key: new.get(key) or old[key] for key in old}
    return {key: value for key, value in found.items() if isinstance(value, (list, tuple))}


MMSEG = Source("mmseg", "decode_head.conv_seg.weight", _recognises, _prefixes, _understand)
