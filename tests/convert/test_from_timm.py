import pytest

from authors_networks import Plain, classifier
from converted_networks import assert_equal_classifier
from danseg.engine.config.config_file import load_config


@pytest.mark.parametrize(
    "name, kind, how",
    [
        ("resnet50", "ResNet", {}),
        ("resnet50c", "ResNetV1c", dict(stem=4)),
        ("resnet50d", "ResNetV1d", dict(stem=4, pooled=True)),
        ("resnet18d", "ResNetV1d", dict(stem=4, pooled=True, depth=18, basic=True)),
    ],
)
def test_its_resnets(image, brought, name, kind, how):
    net = Plain()
    logits = classifier(net, image, **how)
    converted = brought("timm", net.weights)
    assert load_config(converted.config).model.backbone.type == kind
    assert_equal_classifier(converted, net, image, logits)
