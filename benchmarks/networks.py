"""The networks that whole-model benchmarks build, in mmseg's and in danseg's form."""

from dataclasses import dataclass

from torch import nn

NUM_CLASSES = 19
# Segmentor, decode head and auxiliary head: mmseg's, and danseg's in their place.
MMSEG = ("EncoderDecoder", "DAHead", "FCNHead")
DANSEG = ("LeanEncoderDecoder", "DANetHead", "FullyConvolutionalHead")


@dataclass(frozen=True)
class Network:
    """DANet on a dilated ResNet.

    Attributes:
        depth: of the ResNet.
        width: channels of its first stage; 64 in the paper.
    """

    depth: int
    width: int = 64

    @property
    def name(self) -> str:
        return f"DANet-R{self.depth}"


def segmentor(
    network: Network,
    types: tuple[str, str, str],
    dropout_ratio: float = 0.1,
    crop_size: tuple[int, int] | None = None,
) -> nn.Module:
    """The network as a config describes it, with random weights, of :data:`MMSEG` or :data:`DANSEG` types.

    ``crop_size`` is the size that training images are padded to.
    """
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import danseg.heads
    import danseg.segmentors  # noqa: F401

    init_default_scope("mmseg")
    norm, width = dict(type="BN"), network.width
    common = dict(num_classes=NUM_CLASSES, norm_cfg=norm, dropout_ratio=dropout_ratio)
    config = dict(
        type=types[0],
        data_preprocessor=dict(
            type="SegDataPreProcessor",
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            size=crop_size,
        ),
        backbone=dict(
            type="ResNetV1c",
            depth=network.depth,
            base_channels=width,
            stem_channels=width,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            contract_dilation=True,
            norm_cfg=norm,
        ),
        decode_head=dict(
            type=types[1],
            in_channels=32 * width,
            in_index=3,
            channels=8 * width,
            pam_channels=width,
            loss_decode=dict(type="CrossEntropyLoss"),
            **common,
        ),
        auxiliary_head=dict(
            type=types[2],
            in_channels=16 * width,
            in_index=2,
            channels=4 * width,
            num_convs=1,
            concat_input=False,
            loss_decode=dict(type="CrossEntropyLoss", loss_weight=0.4),
            **common,
        ),
        train_cfg=dict(),
        test_cfg=dict(mode="whole"),
    )
    return MODELS.build(ConfigDict(config))
