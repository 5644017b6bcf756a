import pytest
import torch
from torch.nn import functional as F

from authors_networks import ENCODING_STEM, Plain, classifier, contracted, deep_stem, dilated, split_attention
from converted_networks import assert_equal_classifier, built_backbone
from danseg.engine.config.config_file import load_config


@pytest.mark.parametrize("radix, cardinal", [(2, 1), (1, 1), (2, 2), (4, 1)])
def test_the_authors_network(image, brought, radix, cardinal):
    net = Plain()
    logits = classifier(net, image, stem=4, pooled=True, conv2=split_attention(radix, cardinal))
    converted = brought("resnest", net.weights)
    assert_equal_classifier(converted, net, image, logits)
    assert "fast" in converted.described()
    kind = load_config(converted.config).model.backbone.conv2
    assert (kind == "split_attention_pooled") == ((radix, cardinal) == (2, 1))


def test_the_authors_dilated_network(image, brought):
    """In PyTorch-Encoding the first block of a dilated stage pools, with a stride of 1."""
    net = Plain()
    x = F.max_pool2d(deep_stem(net, ENCODING_STEM, image, 4, 8), 3, 2, 1)
    grids = [[1] * 3, [1] * 4, contracted(6, 2), contracted(3, 4)]
    wanted = dilated(net, x, 8, grids, pooled=True, conv2=split_attention())
    weights = net.weights | {"fc.weight": torch.zeros(10, 256), "fc.bias": torch.zeros(10)}
    backbone = built_backbone(brought("resnest", weights))
    with torch.no_grad():
        for ours, theirs in zip(backbone(image)[2:], wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
