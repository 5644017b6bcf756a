"""Register the attention modules for configs: for a head's ``attention=`` and for ResNet's ``plugins=``.

:data:`MODELS` is danseg's own registry, a child of mmseg's. It holds every class of ``danseg.attention``
under its name, so that ``type="danseg.CBAM"`` works in any config. mmseg's registry holds them too, so that
``type="CBAM"`` works without the prefix. The exceptions are names that mmcv uses for its own classes. For
these, a config must write the prefix (``type="danseg.NonLocal2d"``). What the plain name builds therefore
never depends on whether danseg was imported.
"""

import mmseg.registry
from mmengine.registry import Registry
from mmseg.registry import MODELS as MMSEG_MODELS

import danseg.attention
from danseg.mmseg_import import REGISTRATION

# mmcv registers these names itself, the second one only if its operators are compiled.
OWNED_BY_MMCV = ("NonLocal2d", "CrissCrossAttention")

# At its first lookup, this registry imports all that danseg registers with mmseg.
MODELS = Registry("model", parent=MMSEG_MODELS, scope="danseg", locations=[REGISTRATION])

# mmengine looks for what a config takes from ``_base_ = "danseg::..."`` in registries of the scope "danseg".
for _one in list(vars(mmseg.registry).values()):
    if isinstance(_one, Registry) and _one is not MMSEG_MODELS:
        Registry(_one.name, parent=_one, scope="danseg", locations=[REGISTRATION])

for _name in danseg.attention.__all__:
    _module = getattr(danseg.attention, _name)
    MODELS.register_module(name=_name, module=_module)
    if _name not in OWNED_BY_MMCV:
        MMSEG_MODELS.register_module(name=_name, module=_module)
