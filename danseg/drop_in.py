"""Register danseg's classes under mmseg's names, to use them in a config without editing its model.

``custom_imports = dict(imports=["danseg.drop_in"])`` in an mmseg config replaces its ``DAHead``, ``NLHead``,
``CCHead``, ``PSAHead``, ``GCHead``, ``ISAHead``, ``DNLHead`` or ``FCNHead`` by danseg's. Arguments, weights,
outputs and losses are the same (but ignored pixels count in no loss, and what cannot be trained is refused),
memory is linear, and no operator has to be compiled. Its
``EncoderDecoder`` becomes danseg's ``LeanEncoderDecoder``: validation and testing make no logits at the
image's resolution, unless something reads ``seg_logits``. Its ``SegTTAModel`` becomes ``LeanTTAModel``,
which is right for heads with one channel, too.

Only this import replaces mmseg's names. ``import danseg`` does not.

This module also lets torch load the types that mmengine's checkpoints hold. mmengine 0.10.7 reads them with
torch.load, which refuses these types since PyTorch 2.6. mmseg's scripts could then neither test nor resume.
"""

import torch
from mmseg.registry import MODELS

from danseg import heads, segmentors
from danseg.engine.checkpoints.checkpoint import safe_globals
from danseg.heads import counterparts


class PSAHead(heads.PSANetHead):
    """:class:`danseg.heads.PSANetHead`, with mmseg's meaning of ``compact`` where there is one direction."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **{"swap_compact": True, **kwargs})


HEADS = {theirs: getattr(heads, ours) for ours, theirs in counterparts.HEADS.items()}
HEADS["PSAHead"] = PSAHead
SEGMENTORS = {theirs: getattr(segmentors, ours) for ours, theirs in counterparts.SEGMENTORS.items()}

for _name, _class in {**HEADS, **SEGMENTORS}.items():
    MODELS.register_module(name=_name, module=_class, force=True)

torch.serialization.add_safe_globals(safe_globals())
