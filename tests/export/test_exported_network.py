"""The parts of a segmentor that runs an exported file; tests/apis/test_exported_models.py has all."""

import shutil

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from danseg.errors import UserError
from danseg.export.description import Input, Output
from danseg.export.exported_network import ExportedHead, ExportedNetwork, is_exported
from danseg.segmentors import label_confidences
from exported_files import described, write


class Picture(nn.Module):
    """Gives a picture back, (B, H, W, C) uint8, as logits, or its first channel as labels."""

    def __init__(self, labels: bool) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, image):
        return image[..., 0] if self.labels else image.permute(0, 3, 1, 2).float()


@pytest.fixture
def written(tmp_path):
    def write_file(labels):
        description = described(
            input=Input("image", "uint8", "NHWC", "RGB"),
            output=Output("labels", "uint8") if labels else Output("logits", "float32"),
            classes=("a", "b", "c"),
            colours=((0, 0, 0),) * 3,
        )
        example = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
        return str(write(tmp_path / "picture.onnx", Picture(labels), example, description))

    return write_file


def model_of(path, kind="LeanEncoderDecoder", **mode):
    head = dict(type="ExportedHead", num_classes=3, out_channels=3)
    parts = dict(backbone=dict(type="ExportedNetwork", file=path), decode_head=head)
    return MODELS.build(dict(type=kind, **parts, test_cfg=ConfigDict(mode or dict(mode="whole")))).eval()


def test_pictures_go_in_as_they_were_loaded_and_logits_come_out(written):
    network = ExportedNetwork(written(labels=False))
    pixels = torch.randint(0, 256, (2, 3, 5, 7), generator=torch.Generator().manual_seed(0)).float()
    [found] = network(pixels)
    assert torch.equal(found, pixels)
    assert torch.equal(ExportedHead(3, 3)([found]), found)
    assert network.dataset_meta == dict(classes=("a", "b", "c"), palette=[[0, 0, 0]] * 3)


def test_it_has_no_parameters_and_is_told_from_others(written):
    model = model_of(written(labels=False))
    assert is_exported(model) and not is_exported(nn.Conv2d(1, 1, 1)) and not list(model.parameters())
    assert [name for name in model.state_dict()] == ["backbone.digest"]


def test_a_file_is_the_same_whatever_the_case_of_its_ending(written):
    path = written(labels=False)
    other = path.replace(".onnx", ".ONNX")
    shutil.copy(path, other)
    assert torch.equal(ExportedNetwork(path).digest, ExportedNetwork(other).digest)


def test_labels_are_cut_and_enlarged_like_logits(written):
    model = model_of(written(labels=True), "ExportedLabels")
    rng = np.random.default_rng(0)
    inside = torch.from_numpy(rng.integers(0, 3, (4, 5)))
    pixels = torch.zeros(
        1, 3, 8, 8
    )  # 1 column on the left, 2 on the right; 3 rows at the top, 1 at the bottom
    pixels[0, :, 3:7, 1:6] = inside
    sample = SegDataSample(metainfo=dict(ori_shape=(8, 10), img_padding_size=(1, 2, 3, 1)))
    [found] = model.predict(pixels, [sample])
    assert torch.equal(found.pred_sem_seg.data[0], inside.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert found.pred_sem_seg.data.dtype == torch.int64
    for read in (lambda: found.seg_logits.data, lambda: label_confidences(found)):
        with pytest.raises(UserError, match="gives labels alone"):
            read()


@pytest.mark.parametrize("mode", [dict(mode="whole"), dict(mode="slide", crop_size=(4, 4), stride=(4, 4))])
def test_what_needs_logits_is_refused_of_labels(written, mode):
    model = model_of(written(labels=True), "ExportedLabels", **mode)
    inputs, meta = torch.zeros(1, 3, 8, 8), dict(ori_shape=(8, 8), img_shape=(8, 8))
    calls = [
        lambda: model(inputs, mode="tensor"),
        lambda: model.encode_decode(inputs, [meta]),
        lambda: model.predict(inputs),
        lambda: model.predict(inputs, [SegDataSample(metainfo=dict(meta, flip=True))]),
        lambda: EncoderDecoder.predict(model, inputs, [SegDataSample(metainfo=meta)]),
    ]
    for call in calls:
        with pytest.raises(UserError, match=r"picture\.onnx gives labels alone, .* --labels"):
            call()
