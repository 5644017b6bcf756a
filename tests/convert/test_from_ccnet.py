import numpy as np
import pytest
import torch

from authors_networks import Plain, ccnet
from converted_networks import assert_equal_logits
from danseg.apis import load_model

SIZES = [(49, 65), (48, 66)]  # on the latter the stem's pooling rounds up


@pytest.mark.parametrize("size", SIZES)
def test_the_authors_network(image, brought, size):
    images = image.repeat(1, 1, 1, 2)[..., : size[0], : size[1]]
    net = Plain(counters=False)
    logits = ccnet(net, images)
    assert not any("num_batches" in name for name in net.weights)
    assert (net.weights["head.conva.1.weight"] < 0).any()  # of which In-Place Activated BatchNorm takes |.|
    converted = brought("ccnet", {f"module.{name}": value for name, value in net.weights.items()})
    model = assert_equal_logits(converted, images, logits)
    assert "InPlaceABN" in converted.described() and "InPlaceABN" in converted.config.read_text()
    auxiliary = model.auxiliary_head(model.extract_feat(images))
    torch.testing.assert_close(auxiliary, net.auxiliary, rtol=1e-10, atol=1e-10)


def test_images_are_bgr_without_a_deviation(image, brought):
    net = Plain(counters=False)
    ccnet(net, image)
    model = load_model(brought("ccnet", net.weights).checkpoint, device="cpu")
    bgr = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)  # as OpenCV reads it
    tensor = torch.from_numpy(bgr).permute(2, 0, 1)
    got = model.data_preprocessor({"inputs": [tensor]})["inputs"][0]
    mean = torch.tensor([104.00698793, 116.66876762, 122.67891434])
    torch.testing.assert_close(got, tensor.float() - mean[:, None, None])


def test_without_an_auxiliary_head(image, brought):
    net = Plain(counters=False)
    logits = ccnet(net, image, auxiliary=False)
    converted = brought("ccnet", net.weights)
    model = assert_equal_logits(converted, image, logits)
    assert not model.with_auxiliary_head
    assert "auxiliary" not in converted.changed
