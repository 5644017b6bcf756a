"""ResNet with another convolution in its bottlenecks: EPSANet, SKNet, ResNeSt, PyConv, Res2Net, HS-ResNet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmseg.models.backbones import ResNet
from mmseg.models.backbones.resnet import Bottleneck
from mmseg.models.utils import ResLayer
from mmseg.registry import MODELS
from torch import nn

from danseg.attention import (
    PyramidSplitAttention,
    PyramidSplitDualAttention,
    SelectiveKernel,
    SplitAttention,
)
from danseg.backbones.hierarchical_split import HierarchicalSplit
from danseg.backbones.pyramidal_conv import PyramidalConv
from danseg.backbones.res2net_conv import Res2NetConv
from danseg.norm_layer import norm_layer_of


@dataclass(frozen=True)
class Conv2:
    """A replacement for a bottleneck's 3x3 convolution.

    Attributes:
        module: its class, called with the block's width, ``stride``, ``dilation`` and the config's arguments.
        base_width: the width of the published network's first stage, where ResNet's is 64.
        norm_inside: whether the module takes a ``norm_layer`` and normalises and activates its output
            itself; the block then leaves out its second norm.
        defaults: a function to the module's default arguments, from the stage, counted from 0, and whether
            the block is the first of its stage.
    """

    module: type[nn.Module]
    base_width: int = 64
    norm_inside: bool = False
    defaults: Callable[[int, bool], dict[str, Any]] = lambda stage, first: {}


#: The values of ``conv2``.
CONV2 = {
    "pyramid_split": Conv2(PyramidSplitAttention),
    "pyramid_split_dual": Conv2(PyramidSplitDualAttention),
    "selective_kernel": Conv2(SelectiveKernel, base_width=128, norm_inside=True),
    "split_attention": Conv2(SplitAttention, norm_inside=True),
    "split_attention_pooled": Conv2(
        SplitAttention,
        norm_inside=True,
        # It makes a difference in dilated stages, whose first blocks have a stride of 1.
        defaults=lambda stage, first: dict(always_pool=first and stage > 0),
    ),
    "pyconv": Conv2(
        PyramidalConv,
        # One level fewer with each stage, as the maps get smaller.
        defaults=lambda stage, first: dict(
            kernel_sizes=(3, 5, 7, 9)[: 4 - stage], groups=(1, 4, 8, 16)[: 4 - stage]
        ),
    ),
    "res2net": Conv2(
        Res2NetConv,
        base_width=104,  # 26 for each of 4 splits
        norm_inside=True,
        defaults=lambda stage, first: dict(chained=not first),
    ),
    "hs_resnet": Conv2(HierarchicalSplit, base_width=85, norm_inside=True),  # 17 for each of 5 splits
}


class _Bottleneck(Bottleneck):
    """mmseg's bottleneck with another width and another second convolution."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        *,
        conv2: Conv2,
        width: int,
        stage: int,
        arguments: dict[str, Any],
        **kwargs,
    ) -> None:
        self.width = width  # before the parent's __init__, which makes the plugins of this width
        super().__init__(inplanes, planes, **kwargs)
        if width != planes:
            self.conv1 = build_conv_layer(
                self.conv_cfg, inplanes, width, kernel_size=1, stride=self.conv1_stride, bias=False
            )
            self.add_module(self.norm1_name, build_norm_layer(self.norm_cfg, width, postfix=1)[1])
            self.conv3 = build_conv_layer(
                self.conv_cfg, width, planes * self.expansion, kernel_size=1, bias=False
            )
        arguments = {**conv2.defaults(stage, self.downsample is not None), **arguments}
        if conv2.norm_inside:
            # The block's second ReLU stays, but changes nothing: these modules' outputs are never negative.
            norm2 = nn.Identity()
            arguments["norm_layer"] = norm_layer_of(self.norm_cfg)
        else:
            norm2 = build_norm_layer(self.norm_cfg, width, postfix=2)[1]
        self.conv2 = conv2.module(width, stride=self.conv2_stride, dilation=self.dilation, **arguments)
        self.add_module(self.norm2_name, norm2)

    def make_block_plugins(self, in_channels: int, plugins: list[dict]) -> list[str]:
        return super().make_block_plugins(self.width if in_channels == self.planes else in_channels, plugins)


@MODELS.register_module(name=["VariantResNet", "DilatedResNet"])  # its former name, in users' configs
class VariantResNet(ResNet):
    """mmseg's ResNet with another convolution in the place of the bottlenecks' 3x3 convolution.

    ============================ ======================= ================== ======================
    ``conv2``                    module                  network            width of stage 1
    ============================ ======================= ================== ======================
    ``"pyramid_split"``          PyramidSplitAttention   EPSANet (small)    64
    ``"pyramid_split_dual"``     PyramidSplitDual-       --                 64
                                 Attention
    ``"selective_kernel"``       SelectiveKernel         SKNet              128
    ``"split_attention"``        SplitAttention          ResNeSt of mmseg   64
    ``"split_attention_pooled"`` SplitAttention          ResNeSt            64
    ``"pyconv"``                 PyramidalConv           PyConvResNet       64
    ``"res2net"``                Res2NetConv             Res2Net 26w x 4s   104
    ``"hs_resnet"``              HierarchicalSplit       HS-ResNet          85
    ============================ ======================= ================== ======================

    The dict form of ``conv2`` takes the module's arguments, and ``base_width`` is the width between the 1x1
    convolutions: ``conv2=dict(type="pyramid_split", groups=(32, 32, 32, 32)), base_width=128`` is EPSANet
    (large), ``conv2=dict(type="res2net", scale=8), base_width=208`` is Res2Net 26w x 8s. mmseg's arguments
    set the rest of the network: ResNeSt has ``deep_stem=True, avg_down=True``, and ``stem_channels=128``
    from depth 101 on. mmseg's ResNeSt weights load key for key. In dilated stages the authors keep the 3x3
    average pooling of the first block, which mmseg drops: with ``"split_attention_pooled"`` and
    ``contract_dilation=True`` this is the authors' dilated network; without dilation the two are one.
    PyConvResNet's authors leave out the stem's pooling, and pool in the first shortcut of each stage:
    ``pool_shortcuts=True`` does both. HS-ResNet's width is danseg's choice: it gives as many parameters as
    ResNet has.

    Unlike in mmseg's ResNet, the default strides and dilations are those of segmentation: the last two
    stages keep an eighth of the input's size.

    Args:
        depth: 50, 101, 152, 200 or 269.
        conv2: a name from the table, or a dict with this name as ``type`` and the module's arguments.
        base_width: width of the first stage's 3x3 convolutions for 64 ``base_channels``, and in
            proportion for other numbers; by default that of the published network.
        strides: of the stages' first blocks, by default (1, 2, 1, 1), or (2, 2, 1, 1) where the stem has
            no pooling.
        dilations: of the stages.
        pool_shortcuts: move the stem's 3x3 max-pooling to the stages: each stage's first shortcut pools,
            with the stage's stride, and then projects, as in PyConvResNet. Its authors' dilated network keeps
            the pooling, with a stride of 1. The stem no longer pools.
        **kwargs: all other arguments of mmseg's ``ResNet``, except ``dcn``.

    Shapes: ``(B, 3, H, W)`` to a tuple of ``(B, 256, H / 4, W / 4)``, ``(B, 512, H / 8, W / 8)``,
    ``(B, 1024, H / 8, W / 8)`` and ``(B, 2048, H / 8, W / 8)``, sizes rounded up.

    Raises:
        ValueError: for an unknown depth or ``conv2``, for ``dcn``, which replaces the same convolution, or
            for ``avg_down`` with ``pool_shortcuts``, which change the same shortcuts.
    """

    arch_settings = {
        **{depth: setting for depth, setting in ResNet.arch_settings.items() if setting[0] is Bottleneck},
        200: (Bottleneck, (3, 24, 36, 3)),
        269: (Bottleneck, (3, 30, 48, 8)),
    }

    def __init__(
        self,
        depth: int,
        conv2: str | dict[str, Any],
        base_width: int | None = None,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] = (1, 1, 2, 4),
        pool_shortcuts: bool = False,
        **kwargs,
    ) -> None:
        if depth not in self.arch_settings:
            allowed = ", ".join(map(str, self.arch_settings))
            raise ValueError(
                f"VariantResNet's depth must be one of {allowed}, got {depth}; shallower networks have no "
                "bottleneck whose convolution could be replaced"
            )
        arguments = dict(type=conv2) if isinstance(conv2, str) else dict(conv2)
        kind = arguments.pop("type", None)
        if kind not in CONV2:
            raise ValueError(
                f"VariantResNet got conv2={conv2!r}; its type has to be one of {', '.join(CONV2)}"
            )
        if kwargs.get("dcn") is not None:
            raise ValueError("dcn and conv2 both replace the 3x3 convolution: leave out one, got both")
        if pool_shortcuts and kwargs.get("avg_down"):
            raise ValueError("avg_down and pool_shortcuts both change the shortcuts: leave out one, got both")
        self.pool_shortcuts = pool_shortcuts
        self.conv2 = CONV2[kind]
        self.conv2_arguments = arguments
        self.base_width = self.conv2.base_width if base_width is None else base_width
        if strides is None:
            strides = (2 if pool_shortcuts else 1, 2, 1, 1)
        super().__init__(depth, strides=strides, dilations=dilations, **kwargs)
        if pool_shortcuts:
            self.maxpool = nn.Identity()

    def make_res_layer(self, block: type[nn.Module], planes: int, **kwargs) -> ResLayer:
        """Make a stage of blocks with ``conv2`` inside; they take the place of mmseg's ``block``."""
        if self.pool_shortcuts:
            kwargs["avg_down"] = True  # a shortcut with a pooling in front, which is replaced below
        stage = ResLayer(
            block=_Bottleneck,
            planes=planes,
            conv2=self.conv2,
            width=planes * self.base_width // 64,
            stage=len(self.res_layers),
            arguments=self.conv2_arguments,
            **kwargs,
        )
        if self.pool_shortcuts:
            stage[0].downsample[0] = nn.MaxPool2d(3, kwargs["stride"], padding=1)
        return stage
