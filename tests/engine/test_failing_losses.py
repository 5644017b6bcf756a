"""Errors of a loss say what is wrong with the batch that failed."""

import copy

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from broken_config import tiny_with
from danseg.engine.failing_losses import explaining_losses
from danseg.errors import UserError

HEAD = tiny_with({}).model.decode_head


def network(**changes):
    net = nn.Module()
    net.decode_head = MODELS.build({**copy.deepcopy(HEAD), "norm_cfg": dict(type="BN"), **changes})
    return net


def sample(*ids, dtype=torch.int64):
    label = torch.zeros(1, 8, 8, dtype=dtype)
    label[0, 0, : len(ids)] = torch.tensor(ids).to(dtype)
    one = SegDataSample(metainfo=dict(img_path="a.png", seg_map_path="a_label.png"))
    one.gt_sem_seg = PixelData(data=label)
    return one


def run_iter(net, data_batch):
    """As mmengine's loop, whose frame holds the batch."""
    with explaining_losses(net):
        features = [torch.zeros(2, 64, 1, 1)] * 4
        return net.decode_head.loss(features, data_batch["data_samples"], None)


WEIGHTED = dict(loss_decode=dict(type="CrossEntropyLoss", class_weight=[1.0] * 19))  # goes mmseg's own way
ONE = dict(
    num_classes=2, out_channels=1, threshold=0.5, loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True)
)


@pytest.mark.parametrize("changes", [{}, WEIGHTED], ids=["danseg's loss", "mmseg's loss"])
def test_ids_outside_the_classes_are_named_with_their_file(changes):
    with pytest.raises(
        UserError, match=r"a_label\.png has the ids 19, 77.*decode_head has the classes 0 to 18"
    ):
        run_iter(network(**changes), dict(data_samples=[sample(1, 255), sample(77, 255, 19, 3)]))
    run_iter(network(**changes), dict(data_samples=[sample(1), sample(18)]))


def test_ids_of_a_head_with_one_channel():
    with pytest.raises(UserError, match=r"has the ids 7 after.*the classes 0 to 1 \(ignored: 255\)"):
        run_iter(network(**ONE), dict(data_samples=[sample(1, 255), sample(7)]))


def test_class_weights_of_another_length_are_not_blamed_on_the_classes():
    loss = dict(type="CrossEntropyLoss", class_weight=[1.0] * 18)
    with pytest.raises(
        UserError, match="CrossEntropyLoss has 18 numbers in class_weight, but the head has out_channels=19"
    ) as caught:
        run_iter(network(loss_decode=loss), dict(data_samples=[sample(1), sample(2)]))
    assert "num_classes" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_labels_of_another_type(dtype):
    with pytest.raises(UserError, match=rf"a_label\.png has the type {str(dtype)[6:]}"):
        run_iter(network(**WEIGHTED), dict(data_samples=[sample(1, dtype=dtype), sample(1, dtype=dtype)]))


def test_a_batch_without_labels():
    bare = SegDataSample(metainfo=dict(img_path="a.png"))
    with pytest.raises(UserError, match=r"a\.png has no label.*LoadAnnotations"):
        run_iter(network(), dict(data_samples=[bare, bare]))


def test_logits_of_another_number_of_channels():
    net = network()
    net.decode_head.conv_seg = nn.Conv2d(16, 5, 1)
    with pytest.raises(UserError, match="gives out 5 channels, but its out_channels .num_classes. is 19"):
        run_iter(net, dict(data_samples=[sample(7), sample(7)]))


def test_padding_that_is_no_class():
    net = network()
    net.data_preprocessor = MODELS.build(dict(type="SegDataPreProcessor", size=(8, 8), seg_pad_val=200))
    padded = sample(7)
    padded.gt_sem_seg.data = torch.full((1, 8, 8), 200)  # the batch of the loader has no padding yet

    def run_iter(data_batch):
        with explaining_losses(net):
            net.decode_head.loss([torch.zeros(1, 64, 1, 1)] * 4, [padded], None)

    with pytest.raises(UserError, match=r"data_preprocessor\.seg_pad_val=200.*ignore_index=255"):
        run_iter(dict(data_samples=[sample(7)]))


def test_an_assertion_of_a_cuda_kernel_is_explained_by_the_batch():
    def run_iter(data_batch):
        with explaining_losses(network()):
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(UserError, match="has the ids 77"):
        run_iter(dict(data_samples=[sample(77)]))
    with pytest.raises(RuntimeError, match="device-side"):
        run_iter(dict(data_samples=[sample(7)]))


def test_other_errors_stay_as_they_are():
    def run_iter(data_batch):
        with explaining_losses(network()):
            raise ValueError("of the optimiser")

    with pytest.raises(ValueError, match="of the optimiser"):
        run_iter(dict(data_samples=[sample(77)]))
