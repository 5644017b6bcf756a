"""The networks that whole-model benchmarks build, in mmseg's form and in danseg's: those of its configs."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from torch import nn

from benchmarks.criss_cross import plain_criss_cross
from danseg.heads import counterparts

CONFIGS = Path(__file__).parents[1] / "configs"
NUM_CLASSES = 19
# Segmentor, decode head and auxiliary head.
Types = tuple[str, str, str]


@dataclass(frozen=True)
class Head:
    """A decode head in two implementations that share parameter names.

    Attributes:
        name: of the network that has it.
        ours: danseg's type.
        lacks: what mmseg's does not take; danseg's configs set it to what mmseg's always does.
    """

    name: str
    ours: str
    lacks: tuple[str, ...] = ()

    @property
    def theirs(self) -> str:
        """mmseg's type."""
        return counterparts.HEADS[self.ours]


# As the configs' names begin.
HEADS = {
    "danet": Head("DANet", "DANetHead", lacks=("with_pam", "with_cam")),
    "ccnet": Head("CCNet", "CCNetHead"),
    "nonlocal": Head("Non-local", "NonLocalHead"),
    "psanet": Head("PSANet", "PSANetHead"),
}


@dataclass(frozen=True)
class Network:
    """A network of danseg's configs, an attention head on a dilated ResNet.

    Attributes:
        depth: of the ResNet.
        width: channels of its first stage; 64 in the paper and in the configs. Narrow ones are for checks.
        head: a key of :data:`HEADS`.
        recipe: the rest of the config's name, which says how it is trained.
    """

    depth: int
    width: int = 64
    head: str = "danet"
    recipe: str = "cityscapes_512x1024"

    @property
    def name(self) -> str:
        return f"{HEADS[self.head].name}-R{self.depth}"

    @property
    def path(self) -> Path:
        """The config that describes it."""
        return CONFIGS / f"{self.head}_r{self.depth}_{self.recipe}.py"

    def types(self, side: str) -> Types:
        """Of the side "mmseg" or "danseg"."""
        if side == "mmseg":
            return "EncoderDecoder", HEADS[self.head].theirs, "FCNHead"
        return "LeanEncoderDecoder", HEADS[self.head].ours, "FullyConvolutionalHead"


# Of a DANet.
MMSEG, DANSEG = (Network(50).types(side) for side in ("mmseg", "danseg"))


def read_config(network: Network) -> Any:
    """The whole config of a network: with its data, its optimiser and what it recomputes."""
    from danseg.engine.config.config_file import load_config

    return load_config(network.path)


def segmentor(
    network: Network,
    types: Types,
    dropout_ratio: float = 0.1,
    crop_size: tuple[int, int] | None = None,
) -> nn.Module:
    """The network as its config describes it, with random weights, of ``network.types(side)``.

    One process trains it: batch norms are not synchronised. It is tested on whole images.

    Args:
        network: which one.
        types: of the segmentor, the decode head and the auxiliary head.
        dropout_ratio: of both heads.
        crop_size: the size that training images are padded to.

    Raises:
        UserError: mmseg's form needs a file that this mmcv does not have.
        RuntimeError: mmseg's form needs compiled operators that this mmcv does not have.
    """
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import danseg.heads
    import danseg.segmentors  # noqa: F401

    init_default_scope("mmseg")
    model = read_config(network).model
    width, norm = network.width, dict(type="BN")
    model.type, model.decode_head.type, model.auxiliary_head.type = types
    model.pretrained = None
    model.test_cfg = dict(mode="whole")
    model.data_preprocessor.size = crop_size
    model.backbone.update(base_channels=width, stem_channels=width, norm_cfg=norm)
    for part, inputs, channels in ((model.decode_head, 32, 8), (model.auxiliary_head, 16, 4)):
        part.update(in_channels=inputs * width, channels=channels * width, norm_cfg=norm)
        part.dropout_ratio = dropout_ratio
    if "pam_channels" in model.decode_head:
        model.decode_head.pam_channels = width
    if types[1] == HEADS[network.head].theirs:
        for argument in HEADS[network.head].lacks:
            del model.decode_head[argument]
    with _criss_cross_without_operators(types[1]):
        return MODELS.build(model)


def _criss_cross_without_operators(head: str) -> AbstractContextManager:
    """Let mmseg's head find mmcv's module, which is plain PyTorch, where mmcv has no compiled operators."""
    from mmseg.models.decode_heads import cc_head

    if head != "CCHead" or cc_head.CrissCrossAttention is not None:
        return nullcontext()
    return mock.patch.object(cc_head, "CrissCrossAttention", plain_criss_cross())
