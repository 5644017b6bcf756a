"""What a conversion has written, as a network, and compared with its authors' one."""

import torch
from mmseg.registry import MODELS
from torch import Tensor

from authors_networks import Plain
from danseg.apis import load_model
from danseg.convert import Converted
from danseg.engine.config.config_file import load_config
from danseg.mmseg_import import building_quietly


def exact_model(converted: Converted) -> torch.nn.Module:
    """The converted network in float64, with the file's weights as they are there."""
    return _exact(load_model(converted.checkpoint, device="cpu"), converted)


def _exact(model: torch.nn.Module, converted: Converted) -> torch.nn.Module:
    model.double().load_state_dict(torch.load(converted.checkpoint)["state_dict"], strict=True)
    return model


def assert_equal_logits(converted: Converted, images: Tensor, logits: Tensor) -> torch.nn.Module:
    """The converted network's coarse logits: to 1e-10 in float64, and to 1e-5 as it is loaded.

    Returns:
        The network in float64.
    """
    model = load_model(converted.checkpoint, device="cpu")
    with torch.no_grad():
        single = model.decode_head(model.extract_feat(images.float()))
        assert (single - logits).abs().max() <= 1e-5 * logits.abs().max()
        _exact(model, converted)
        exact = model.decode_head(model.extract_feat(images))
    # A temperature of 0.05 makes DNL's energies, and their rounding, twenty times larger.
    limit = 1e-9 if hasattr(model.decode_head, "dnl_block") else 1e-10
    assert (exact - logits).abs().max() <= limit * logits.abs().max()
    return model


def built_backbone(converted: Converted, **changed) -> torch.nn.Module:
    """The backbone of the converted config in float64, with the weights of its file."""
    config = load_config(converted.config).model
    with building_quietly():
        backbone = MODELS.build({**config.backbone, "norm_cfg": dict(type="BN"), **changed})
    backbone.double().eval()
    backbone.load_state_dict(torch.load(converted.checkpoint)["state_dict"], strict=True)
    return backbone


def assert_equal_classifier(converted: Converted, net: Plain, images: Tensor, logits: Tensor) -> None:
    """At the strides it was trained with, the backbone has the authors' features, and so their logits."""
    assert converted.backbone and converted.left_out == ("fc.weight", "fc.bias")
    backbone = built_backbone(converted, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))
    with torch.no_grad():
        features = backbone(images)[-1].mean((2, 3))
    ours = features @ net.weights["fc.weight"].T + net.weights["fc.bias"]
    torch.testing.assert_close(ours, logits, rtol=1e-10, atol=1e-10)
