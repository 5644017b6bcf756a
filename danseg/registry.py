"""Attention modules by name, for configs: as a head's ``attention=`` and in ResNet's ``plugins=``.

:data:`MODELS` is danseg's own registry below mmseg's. It holds every class of
``danseg.attention`` under its name, so that ``type="danseg.CBAM"`` finds it from any config.
mmseg's registry holds them too, so that plain ``type="CBAM"`` does, except the names that mmcv
has given to classes of its own: there a config names danseg's with its prefix
(``type="danseg.NonLocal2d"``), and a missing prefix or import never builds another network.
"""

from mmengine.registry import Registry
from mmseg.registry import MODELS as MMSEG_MODELS

import danseg.attention
from danseg.mmseg_import import REGISTRATION

# mmcv registers these itself, the second only where its operators are compiled.
OWNED_BY_MMCV = ("NonLocal2d", "CrissCrossAttention")

# At its first lookup it imports what mmseg's registry holds of danseg.
MODELS = Registry("model", parent=MMSEG_MODELS, scope="danseg", locations=[REGISTRATION])

for _name in danseg.attention.__all__:
    _module = getattr(danseg.attention, _name)
    MODELS.register_module(name=_name, module=_module)
    if _name not in OWNED_BY_MMCV:
        MMSEG_MODELS.register_module(name=_name, module=_module)
