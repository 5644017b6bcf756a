import pytest
import torch

from authors_networks import Plain, danet
from converted_networks import assert_equal_logits
from danseg.apis import load_model


@pytest.mark.parametrize("deep", [False, True])
def test_the_authors_network(image, brought, deep):
    net = Plain()
    logits = danet(net, image, deep=deep)
    assert net.weights["head.sa.gamma"].shape == (1,) and net.weights["head.sc.gamma"].abs() > 0.05
    converted = brought("danet", {"epoch": 3, "state_dict": net.weights, "best_pred": 0.8})
    model = assert_equal_logits(converted, image, logits)
    assert converted.tensors == len(net.weights) and not converted.left_out
    assert converted.base == "danseg::danet_r50_cityscapes"
    assert model.align_corners and not model.with_auxiliary_head
    assert model.decode_head.cam.gamma.scale.shape == ()


def test_classifiers_of_the_branches_are_for_training(image, brought):
    net = Plain()
    danet(net, image)
    model = load_model(brought("danet", net.weights).checkpoint, device="cpu")
    for name, theirs in (("pam_conv_seg", "conv6"), ("cam_conv_seg", "conv7")):
        own = getattr(model.decode_head, name).weight
        assert torch.equal(own, net.weights[f"head.{theirs}.1.weight"].float())


def test_the_classifier_of_imagenet_is_left_out(image, brought):
    net = Plain()
    danet(net, image)
    weights = net.weights | {
        "pretrained.fc.weight": torch.zeros(10, 8),
        "pretrained.fc.bias": torch.zeros(10),
    }
    converted = brought("danet", weights)
    assert converted.left_out == ("pretrained.fc.weight", "pretrained.fc.bias")
    assert "left out" in converted.described() and "pretrained.fc.bias" in converted.described()


def test_another_grid_is_the_users_word(image, brought):
    net = Plain()
    danet(net, image)
    converted = brought("danet", net.weights, options={"model.backbone.multi_grid": None})
    assert load_model(converted.checkpoint, device="cpu").backbone.multi_grid is None
    assert not converted.assumed and "assumed" not in converted.described()


def test_windows_and_size_of_the_authors_test(image, brought):
    net = Plain()
    danet(net, image)
    config = load_model(brought("danet", net.weights).checkpoint, device="cpu").cfg
    assert config.model.test_cfg == dict(mode="slide", crop_size=(768, 768), stride=(512, 512))
    assert tuple(config.test_dataloader.dataset.pipeline[1]["scale"]) == (2048, 1024)
