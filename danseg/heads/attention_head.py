"""A decode head around any attention module."""

from mmseg.registry import MODELS
from torch import Tensor, nn

from danseg.heads.base import ContextHead
from danseg.registry import MODELS as ATTENTION_MODULES


@MODELS.register_module()
class AttentionHead(ContextHead):
    """Decode head around the attention module that a config names.

    ``attention=dict(type="CBAM", reduction=8)`` puts ``CBAM(channels, reduction=8)`` between the
    head's convolutions. The type is a class of ``danseg.attention``, or any module in mmseg's
    registry that takes ``in_channels`` and keeps its input's shape.

    If ``norm_cfg`` synchronises batch statistics between devices, the module's batch norms do so too.

    Args:
        attention: ``type`` and the other arguments of the module, without ``in_channels``.
        **kwargs: as for :class:`danseg.heads.base.ContextHead`.

    Raises:
        ValueError: when ``attention`` has no ``type``, or one that is not registered.
    """

    def __init__(self, attention: dict, **kwargs) -> None:
        super().__init__(**kwargs)
        self.attention = _build(attention, self.channels)
        if (self.norm_cfg or {}).get("type") == "SyncBN":
            self.attention = nn.SyncBatchNorm.convert_sync_batchnorm(self.attention)

    def attend(self, x: Tensor) -> Tensor:
        return self.attention(x)


def _build(config: dict, in_channels: int) -> nn.Module:
    arguments = dict(config)
    name = arguments.pop("type", None)
    module = ATTENTION_MODULES.get(name) if isinstance(name, str) else name
    if module is None:
        known = ", ".join(sorted(ATTENTION_MODULES.module_dict))
        raise ValueError(f"AttentionHead got attention={config}; its type has to be one of {known}")
    return module(in_channels=in_channels, **arguments)
