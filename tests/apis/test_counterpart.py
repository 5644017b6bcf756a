"""mmseg's own form of every network that danseg's configs describe."""

import pytest
import torch
from mmengine.config import Config
from mmseg.models import decode_heads
from mmseg.models.decode_heads import cc_head, psa_head

import danseg.heads
from danseg.apis import load_model
from danseg.apis.counterpart import counterpart
from danseg.errors import UserError
from danseg.heads.counterparts import HEADS

# Arguments that a head needs, or that are large without them.
ARGUMENTS = {
    "CCNetHead": dict(recurrence=2),
    "DANetHead": dict(pam_channels=4, with_pam=True),
    "DNLNetHead": dict(reduction=2),
    "FullyConvolutionalHead": dict(num_convs=1),
    "GCNetHead": dict(ratio=1 / 4),
    "ISANetHead": dict(isa_channels=8, down_factor=(2, 2)),
    "NonLocalHead": dict(reduction=2),
    "PSANetHead": dict(mask_size=(9, 9)),
}
LACKING = {
    "CCHead": cc_head.CrissCrossAttention is None,
    "PSAHead": psa_head.PSAMask is None,
}


@pytest.fixture
def model(make_config):
    def make(**head):
        config: Config = make_config("unused", head=head)
        config.model.type = "LeanEncoderDecoder"
        torch.manual_seed(0)
        model = load_model(config, None, "cpu")
        for name, parameter in model.named_parameters():
            if name.endswith("gamma.scale"):
                torch.nn.init.constant_(parameter, 0.7)
        return model

    return make


def test_the_table_is_of_heads_that_both_have():
    assert HEADS.keys() <= set(danseg.heads.__all__) and HEADS.keys() == ARGUMENTS.keys()
    assert all(hasattr(decode_heads, name) for name in HEADS.values())


@pytest.mark.parametrize("name", sorted(danseg.heads.__all__))
def test_the_same_network_in_mmsegs_classes(model, name):
    if name not in HEADS:
        attention = dict(attention=dict(type="CBAM")) if name == "AttentionHead" else {}
        with pytest.raises(UserError, match=f"^mmseg has no counterpart of {name}$"):
            counterpart(model(type=name, **attention))
        return
    ours = model(type=name, **ARGUMENTS[name])
    if LACKING.get(HEADS[name]):
        with pytest.raises(UserError, match=f"^mmseg's {HEADS[name]} needs mmcv's compiled operators"):
            counterpart(ours)
        return
    theirs = counterpart(ours)
    assert not [m for m in theirs.modules() if type(m).__module__.startswith("danseg")]
    assert type(theirs.decode_head).__name__ == HEADS[name] and not theirs.training
    image = torch.randn(1, 3, 40, 48)
    with torch.no_grad():
        found, expected = (one(image, mode="tensor") for one in (theirs, ours))
    found, expected = (one[0] if isinstance(one, tuple) else one for one in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_mmsegs_head_cannot_do_is_named(model):
    with pytest.raises(UserError, match="^mmseg's DAHead has no with_pam, which is False here$"):
        counterpart(model(type="DANetHead", pam_channels=4, with_pam=False))


def test_a_backbone_of_danseg_has_none(make_config):
    config = make_config("unused", head=dict(type="FCNHead", num_convs=1))
    config.model.backbone = dict(
        type="VariantResNet",
        depth=50,
        base_channels=8,
        stem_channels=8,
        conv2="pyramid_split",
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=dict(type="BN"),
    )
    config.model.decode_head.in_channels = 256
    with pytest.raises(UserError, match="^mmseg has no counterpart of VariantResNet$"):
        counterpart(load_model(config, None, "cpu"))
