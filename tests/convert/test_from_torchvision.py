import pytest
import torch

from authors_networks import Plain, classifier, torchvision_fcn
from converted_networks import assert_equal_classifier, assert_equal_logits


def test_its_fcn(image, brought):
    net = Plain()
    logits = torchvision_fcn(net, image)
    converted = brought("torchvision", net.weights)
    model = assert_equal_logits(converted, image, logits)
    auxiliary = model.auxiliary_head(model.extract_feat(image))
    torch.testing.assert_close(auxiliary, net.auxiliary, rtol=1e-10, atol=1e-10)
    assert converted.base == "danseg::fcn_r50_voc2012" and not model.align_corners


def test_its_fcn_without_an_auxiliary_head(image, brought):
    net = Plain()
    logits = torchvision_fcn(net, image, auxiliary=False)
    converted = brought("torchvision", net.weights)
    model = assert_equal_logits(converted, image, logits)
    assert not model.with_auxiliary_head


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_its_backbones(image, brought, depth):
    net = Plain()
    logits = classifier(net, image, depth, basic=depth < 50)
    assert_equal_classifier(brought("torchvision", net.weights), net, image, logits)
