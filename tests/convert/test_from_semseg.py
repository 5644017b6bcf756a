import pytest
import torch

from authors_networks import Plain, psanet
from converted_networks import assert_equal_logits, exact_model
from danseg.errors import UserError


@pytest.mark.parametrize("side", [5, 9])  # of masks that do not cover the grid of 4 x 5, and that do
def test_the_authors_network(image, brought, side):
    net = Plain()
    logits = psanet(net, image, side=side)
    weights = {f"module.{name}": value for name, value in net.weights.items()}
    converted = brought("semseg", {"epoch": 200, "state_dict": weights, "optimizer": {}})
    model = assert_equal_logits(converted, image, logits)
    auxiliary = model.auxiliary_head(model.extract_feat(image))
    torch.testing.assert_close(auxiliary, net.auxiliary, rtol=1e-10, atol=1e-10)
    assert model.align_corners


@pytest.mark.parametrize("kind, name", [(0, "collect"), (1, "distribute")])
def test_one_direction_is_the_users_word(image, brought, kind, name):
    net = Plain()
    logits = psanet(net, image, kind=kind)
    with pytest.raises(UserError, match=r"do not say model\.decode_head\.psa_type: give model\.decode"):
        brought("semseg", net.weights)
    converted = brought("semseg", net.weights, options={"model.decode_head.psa_type": name})
    assert_equal_logits(converted, image, logits)


def test_a_mask_that_is_no_square_is_the_users_word(image, brought):
    net = Plain()
    psanet(net, image)
    for suffix in ("", "_p"):
        name = f"psa.attention{suffix}.3.weight"
        net.weights[name] = net.weights[name][:35]
    with pytest.raises(UserError, match=r"do not say model\.decode_head\.mask_size"):
        brought("semseg", net.weights)
    converted = brought("semseg", net.weights, options={"model.decode_head.mask_size": (5, 7)})
    assert exact_model(converted).decode_head.mask_size == (5, 7)


@pytest.mark.parametrize(
    "classes, base, scale", [(19, "cityscapes", (2048, 1024)), (150, "ade20k", (512, 512))]
)
def test_windows_are_those_that_the_mask_was_made_for(image, brought, classes, base, scale):
    net = Plain()
    psanet(net, image, classes, side=7)
    converted = brought("semseg", net.weights)
    config = exact_model(converted).cfg
    # A mask of 2n - 1 covers a grid of n = 4 from everywhere; that is 7 positions, and 49 pixels.
    assert config.model.test_cfg == dict(mode="slide", crop_size=(49, 49), stride=(33, 33))
    assert converted.base == f"danseg::psanet_r50_{base}"
    assert tuple(config.test_dataloader.dataset.pipeline[1]["scale"]) == scale
