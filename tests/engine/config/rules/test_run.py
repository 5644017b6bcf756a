"""What the rules leave alone, because only a user's own class knows what it means."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmseg.models.backbones import ResNet

from broken_config import messages

HEAD, AUXILIARY = "model.decode_head", "model.auxiliary_head"


@MODELS.register_module()
class _OwnLoss(torch.nn.Module):
    def __init__(self, ignore_index=-100, class_weight=None):
        super().__init__()


@HOOKS.register_module()
class _CountsEpochs(Hook):
    def __init__(self, by_epoch=True):
        pass


@MODELS.register_module()
class _WideResNet(ResNet):
    """Gives out twice as many channels."""


@pytest.mark.parametrize(
    "options",
    [
        {f"{HEAD}.loss_decode": dict(type="_OwnLoss", class_weight=[1.0, 2.0])},
        {"custom_hooks": [dict(type="_CountsEpochs")]},
        {"model.backbone.type": "_WideResNet", f"{HEAD}.in_channels": 128, f"{AUXILIARY}.in_channels": 64},
    ],
    ids=str,
)
def test_what_a_users_own_class_means_is_not_guessed(options):
    assert messages(options) == []
