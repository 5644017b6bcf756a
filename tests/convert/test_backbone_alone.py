import torch
from mmseg.registry import MODELS

from authors_networks import Plain, classifier
from converted_networks import built_backbone
from danseg.engine.config.agreement import check_agreement
from danseg.engine.config.config_file import load_config
from danseg.mmseg_import import building_quietly


def test_a_training_starts_from_it(image, brought):
    net = Plain()
    classifier(net, image)
    converted = brought("torchvision", net.weights, config="danet_r50_cityscapes")
    config = load_config(converted.config)
    check_agreement(config, "train", "test")
    assert config.model.pretrained == str(converted.checkpoint.resolve())
    config.model.backbone.norm_cfg = dict(type="BN")
    with building_quietly():
        model = MODELS.build(config.model)
    model.init_weights()
    own = model.backbone.state_dict()
    assert torch.equal(own["layer4.2.conv3.weight"], net.weights["layer4.2.conv3.weight"].float())
    assert torch.equal(own["conv1.weight"], net.weights["conv1.weight"].float())


def test_it_is_dilated_as_the_recipes_networks(image, brought):
    net = Plain()
    classifier(net, image)
    shapes = [tuple(one.shape[2:]) for one in built_backbone(brought("torchvision", net.weights))(image)]
    assert shapes == [(13, 17), (7, 9), (7, 9), (7, 9)]
