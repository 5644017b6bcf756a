"""ResNet whose stem pools with sizes rounded up, as in CCNet's authors' code."""

from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS


@MODELS.register_module()
class CeilPooledResNet(ResNet):
    """mmseg's ResNet with ``ceil_mode`` in the max-pooling of its stem.

    On images with sides of 8n + 1 pixels it is mmseg's network. On others its maps may have a row and a
    column more: of 512 pixels the stem makes 129, and not 128.

    CCNet's authors trained so (https://github.com/speedinghzl/CCNet), with ``deep_stem=True,
    stem_channels=128``.

    Args:
        **kwargs: all arguments of mmseg's ``ResNet``.

    Shapes: as for mmseg's ``ResNet``, where the stem's map has ``ceil((H' - 1) / 2) + 1`` rows for the H'
    rows before its pooling.
    """

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)
        self.maxpool.ceil_mode = True
