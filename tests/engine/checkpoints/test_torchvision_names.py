import pytest
import torch
from mmseg.models.backbones import ResNet, ResNetV1c, ResNetV1d

from danseg.engine.checkpoints.torchvision_names import as_backbone, prefix_of

# Where PyTorch's ResNets keep what mmseg keeps in ``stem``, in the order of the stem's layers.
DEEP = {0: "conv1.0", 1: "conv1.1", 3: "conv1.3", 4: "conv1.4", 6: "conv1.6", 7: "bn1"}


def torchvision_names(backbone) -> dict[str, torch.Tensor]:
    """A backbone's weights as PyTorch's networks name them, with a classifier."""
    found = {"fc.weight": torch.zeros(10, 8), "fc.bias": torch.zeros(10)}
    for name, value in backbone.state_dict().items():
        words = name.split(".")
        if words[0] == "stem":
            words[:2] = [DEEP[int(words[1])]]
        found[".".join(words)] = value
    return found


@pytest.mark.parametrize("kind", [ResNet, ResNetV1c, ResNetV1d])
@pytest.mark.parametrize("depth", [18, 50])
def test_every_weight_gets_the_name_that_the_backbone_has_for_it(kind, depth):
    backbone = kind(depth=depth, base_channels=4, stem_channels=4)
    mapped = as_backbone(torchvision_names(backbone))
    assert list(mapped.keys() - backbone.state_dict().keys()) == []
    assert backbone.load_state_dict(mapped, strict=True)
    own = backbone.state_dict()
    assert all(torch.equal(mapped[name], own[name]) for name in own)


def test_names_of_mmseg_stay():
    own = ResNetV1c(depth=18, base_channels=4, stem_channels=4).state_dict()
    assert as_backbone(own).keys() == own.keys()


def test_a_prefix_is_whole_words_and_the_longest_wins():
    prefixes = {"conv1": "a", "conv1.0": "b", "head.gamma": "c"}
    assert prefix_of("conv1.0.weight", prefixes) == "conv1.0"
    assert prefix_of("conv1.weight", prefixes) == "conv1"
    assert prefix_of("conv10.weight", prefixes) is None
    assert prefix_of("head.gamma", prefixes) == "head.gamma"
