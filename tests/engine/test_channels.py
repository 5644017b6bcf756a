"""The channels that a config's network takes, and what may normalise them."""

import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from danseg.engine.channels import check_normalisation, input_channels
from danseg.errors import UserError


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmseg")


@MODELS.register_module(force=True)
class SaysNothingOfChannels(nn.Module):
    pass


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        (dict(type="ResNetV1c", in_channels=7), 7),
        (dict(type="ResNetV1c"), 3),  # its own signature has **kwargs alone
        (dict(type="mmseg.ResNet"), 3),
        (dict(type="VariantResNet"), 3),
        (dict(type="SwinTransformer"), 3),
        (dict(type="SaysNothingOfChannels"), None),
        (dict(type="NoSuchBackbone"), None),
    ],
)
def test_channels_come_from_the_config_or_the_class(backbone, channels):
    assert input_channels(dict(backbone=backbone)) == channels
    assert input_channels(dict(module=dict(backbone=backbone))) == channels  # as --tta wraps a model


def preprocessor(mean, std=None):
    return dict(type="SegDataPreProcessor", mean=mean, std=mean if std is None else std)


def test_each_number_of_values_is_checked():
    model = dict(backbone=dict(type="ResNetV1c"))
    for good in (
        preprocessor([1, 2, 3]),
        preprocessor([1]),
        preprocessor([1, 2, 3], [1]),
        preprocessor(None),
    ):
        check_normalisation(dict(model, data_preprocessor=good))
    check_normalisation(model)  # an mmseg model may have none
    with pytest.raises(
        UserError, match=r"a\.py: model\.data_preprocessor\.std has 2 values.*takes 3 channels"
    ):
        check_normalisation(dict(model, data_preprocessor=preprocessor([1, 2, 3], [1, 2])), "a.py")
    with pytest.raises(UserError, match="cannot be built"):
        check_normalisation(dict(model, data_preprocessor=dict(type="SegDataPreProcessor", mean=[1])))
    nobody_knows = dict(
        backbone=dict(type="SaysNothingOfChannels"), data_preprocessor=preprocessor([1, 2, 3])
    )
    check_normalisation(nobody_knows)


def test_what_the_installed_mmseg_does_not_take_is_told_with_the_way_round():
    four = dict(backbone=dict(type="ResNetV1c", in_channels=4), data_preprocessor=preprocessor([1, 2, 3, 4]))
    try:
        MODELS.build(four["data_preprocessor"])
    except AssertionError:
        with pytest.raises(UserError, match="cannot be built.*type='Normalize'"):
            check_normalisation(four)
    else:
        check_normalisation(four)
