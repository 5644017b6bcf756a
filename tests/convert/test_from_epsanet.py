import pytest

from authors_networks import Plain, classifier, pyramid_split
from converted_networks import assert_equal_classifier


@pytest.mark.parametrize("depth", [50, 101])
def test_the_authors_network(image, brought, depth):
    net = Plain()
    logits = classifier(net, image, depth, base=16, conv2=pyramid_split())
    converted = brought("epsanet", {"state_dict": {f"module.{name}": v for name, v in net.weights.items()}})
    assert_equal_classifier(converted, net, image, logits)
    assert converted.base == f"danseg::epsanet_r{depth}_cityscapes"
