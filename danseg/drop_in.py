"""mmseg's own names on danseg's classes, for configs that are not to be edited.

``custom_imports = dict(imports=["danseg.drop_in"])`` in an mmseg config makes its ``DAHead``,
``NLHead``, ``CCHead``, ``PSAHead``, ``GCHead``, ``ISAHead``, ``DNLHead`` or ``FCNHead`` danseg's: the
arguments, weights, outputs and losses are the same, the memory is linear, and nothing has to be compiled.
Its ``EncoderDecoder`` becomes danseg's ``LeanEncoderDecoder``: validation and testing make no logits at
the image's resolution, except for those who read ``seg_logits``.

Only this import takes mmseg's names over. ``import danseg`` leaves them alone.

It also tells torch that what mmengine's checkpoints hold is data. mmengine 0.10.7 relies on torch.load,
which since PyTorch 2.6 refuses them, so that mmseg's scripts could neither test nor resume.
"""

import torch
from mmseg.registry import MODELS

from danseg.engine.checkpoint import safe_globals
from danseg.heads import (
    CCNetHead,
    DANetHead,
    DNLNetHead,
    FullyConvolutionalHead,
    GCNetHead,
    ISANetHead,
    NonLocalHead,
    PSANetHead,
)
from danseg.segmentors import LeanEncoderDecoder

HEADS = {
    "CCHead": CCNetHead,
    "DAHead": DANetHead,
    "DNLHead": DNLNetHead,
    "FCNHead": FullyConvolutionalHead,
    "GCHead": GCNetHead,
    "ISAHead": ISANetHead,
    "NLHead": NonLocalHead,
    "PSAHead": PSANetHead,
}

SEGMENTORS = {"EncoderDecoder": LeanEncoderDecoder}

for _name, _class in {**HEADS, **SEGMENTORS}.items():
    MODELS.register_module(name=_name, module=_class, force=True)

torch.serialization.add_safe_globals(safe_globals())
