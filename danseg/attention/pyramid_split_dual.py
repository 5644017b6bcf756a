"""Pyramid split dual attention: dual attention decides how much each kernel size weighs.

Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv 1809.02983, in the pyramid of
Zhang et al., "EPSANet", ACCV 2022, arXiv 2105.14447.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from danseg.attention.dual import DualAttention
from danseg.attention.parts.arguments import check_feature_map
from danseg.attention.parts.query_positions import flat_index
from danseg.attention.parts.views import View
from danseg.attention.pyramid_split import PyramidSplit


class PyramidSplitDualAttention(PyramidSplit):
    """Pyramid split attention whose branch weights come from position and channel attention.

    For feature map ``x`` and branches i = 1 ... 4 of kernel sizes 3, 5, 7, 9::

        F_i = conv_i(x)                                        # C / 4 channels, grouped, no bias
        s_i = σ(mean_hw(PositionAttention(F_i) + ChannelAttention(F_i)))     # one pair of modules for all i
        out = concat_i=4,3,2,1(softmax_i(s_i) · F_i)

    Paper: Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv 1809.02983, in
    the pyramid of Zhang et al., "EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional
    Neural Network", ACCV 2022, arXiv 2105.14447. The module combines the two papers and is in neither: in
    EPSANet's pyramid, DANet's two modules replace the squeeze-and-excitation. All branches share them. A
    branch's weight then depends on how its positions and channels relate, not on their mean alone. As in
    EPSANet, the sigmoid keeps any two weights within a factor e of each other. Memory is linear in the
    number of positions.

    Args:
        in_channels: channels of the input and of the output, divisible by the number of branches.
        kernel_sizes: one odd size per branch.
        groups: groups of each branch's convolution; the greatest common divisor with the branch's
            channels is used.
        query_channels: as in :class:`PositionAttention`, which sees a branch's channels.
        stride: of the convolutions; the output has ``ceil(H / stride)`` rows.
        dilation: of the convolutions.

    Shapes: ``(B, C, H, W)`` to ``(B, C, H, W)``.

    Raises:
        ValueError: for a number below 1, an even kernel size, lists of unequal lengths, or channels that
            cannot be divided among the branches.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        groups: Sequence[int] = (1, 4, 8, 16),
        query_channels: int | None = None,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, kernel_sizes, groups, stride, dilation)
        self.dual = DualAttention(self.branch_channels, query_channels)

    def score(self, features: list[Tensor]) -> Tensor:
        wide = torch.promote_types(features[0].dtype, torch.float32)
        pooled = [self.dual(f).mean(dim=(2, 3), dtype=wide) for f in features]  # S of (B, C / S)
        return torch.stack(pooled, dim=1).sigmoid()

    def attention_views(self) -> tuple[View, ...]:
        """Those of a pyramid; then position and channel attention, which run once for each branch.

        They are called "position 3x3", "channels 3x3" and so on, after the branch whose features they see.
        """
        views = list(super().attention_views())
        for what, module in (("position", self.dual.pam), ("channels", self.dual.cam)):
            [view] = module.attention_views()
            for i, name in enumerate(self.branch_names):
                begin = partial(self._begin_in_branch, view, i)
                views.append(View(view.kind, begin, f"{what} {name}", view.values, view.parts))
        return tuple(views)

    def _begin_in_branch(self, view: View, branch: int, x: Tensor) -> Callable[..., Tensor]:
        check_feature_map(self, x)
        features = self._convs()[branch](x)
        shown = view.begin(features)
        if view.kind != "position":
            return shown

        def rows(positions: Sequence[tuple[int, int]]) -> Tensor:
            flat_index(positions, x.shape[2:], x.device)  # refuses what lies outside
            (height, width), (h, w) = x.shape[2:], features.shape[2:]
            return shown([(row * h // height, column * w // width) for row, column in positions])

        return rows
