import os

import pytest
import torch
from mmengine.runner import CheckpointLoader
from mmseg.datasets import CityscapesDataset
from mmseg.registry import MODELS
from torch import nn

from danseg import apis
from danseg.datasets.metainfo import built_metainfo
from danseg.errors import UserError


def test_model_carries_the_classes_and_colours_of_its_data_set(camvid, make_config):
    from danseg.datasets import CamVidDataset

    config = make_config(camvid)
    model = apis.load_model(config, None, "cpu")
    assert model.dataset_meta["classes"] == CamVidDataset.METAINFO["classes"]
    assert [list(colour) for colour in model.dataset_meta["palette"]] == CamVidDataset.METAINFO["palette"]
    assert not model.training
    assert config.model.pretrained == "open-mmlab://resnet18_v1c", "the caller's config was changed"
    config.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[config.test_dataloader.dataset])
    assert apis.dataset_meta(config)["classes"] == CamVidDataset.METAINFO["classes"]


def test_a_network_of_two_classes_is_built_without_a_word(camvid, make_config, recwarn):
    """mmseg advises one channel, and names a default of the loss."""
    config = make_config(camvid)
    config.test_dataloader.dataset.metainfo = dict(classes=("sky", "road"))
    config.model.decode_head.num_classes = 2
    apis.load_model(config, None, "cpu")
    said = " ".join(str(one.message) for one in recwarn)
    assert "binary segmentation" not in said and "avg_non_ignore" not in said


def test_a_model_is_where_it_is_asked_for_or_on_the_gpu_if_there_is_one(camvid, make_config, device):
    config = make_config(camvid)  # with synchronised batch norms
    for asked, place in ((device, device), (str(device), device), ("cpu", torch.device("cpu"))):
        model = apis.load_model(config, None, asked)
        assert {value.device for value in model.state_dict().values()} == {place}
        synchronised = any(isinstance(one, nn.SyncBatchNorm) for one in model.modules())
        assert synchronised == (place.type == "cuda")
    there = "cuda" if torch.cuda.is_available() else "cpu"
    assert next(apis.load_model(config, None).parameters()).device.type == there


def test_weights_of_another_network_are_refused(camvid, tmp_path, make_config, make_checkpoint):
    checkpoint = make_checkpoint(make_config(camvid), tmp_path / "weights.pth")
    other = make_config(camvid, head=dict(type="FCNHead", num_convs=1))
    with pytest.raises(UserError, match="weights.pth"):
        apis.load_model(other, checkpoint, "cpu")


def test_weights_that_are_not_finite_are_refused(camvid, tmp_path, make_config, make_checkpoint):
    path = make_checkpoint(make_config(camvid), tmp_path / "weights.pth")
    content = torch.load(path, weights_only=True)
    content["state_dict"]["decode_head.conv_seg.bias"][3] = float("inf")
    torch.save(content, path)
    with pytest.raises(UserError, match=r"weights.pth cannot be used, 1 weights hold NaN .*conv_seg\.bias"):
        apis.load_model(make_config(camvid), path, "cpu")


class _Malicious:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_network_that_reads_a_file_when_it_is_built_runs_no_code_from_it(camvid, tmp_path, make_config):
    @MODELS.register_module(force=True)
    class ReadingResNet(MODELS.get("ResNetV1c")):
        def __init__(self, weights, **arguments):
            super().__init__(**arguments)
            CheckpointLoader.load_checkpoint(weights)

    torch.save(dict(state_dict={}, meta=_Malicious(tmp_path / "ran")), tmp_path / "a.pth")
    config = make_config(camvid)
    config.model.backbone.update(type="ReadingResNet", weights=str(tmp_path / "a.pth"))
    with pytest.raises(UserError, match=r"a\.pth is refused: it holds posix\.mkdir"):
        apis.load_model(config, None, "cpu")
    assert not (tmp_path / "ran").exists()


CITYSCAPES = dict(zip(*(CityscapesDataset.METAINFO[key] for key in ("classes", "palette")), strict=True))


def with_classes(config, dataset: dict):
    """The config with another data set, of three classes."""
    old = config.test_dataloader.dataset
    config.test_dataloader.dataset = {**dataset, "data_root": old.data_root, "pipeline": old.pipeline}
    config.model.decode_head.num_classes = 3
    return config


def weights(config, path, **meta):
    model = MODELS.build({**config.model, "pretrained": None})
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def test_a_part_of_the_classes_keeps_its_colours(camvid, make_config):
    classes = ("person", "road", "car")
    dataset = dict(type="CityscapesDataset", metainfo=dict(classes=classes))
    model = apis.load_model(with_classes(make_config(camvid), dataset), None, "cpu")
    assert model.dataset_meta["classes"] == classes
    assert model.dataset_meta["palette"] == [tuple(CITYSCAPES[name]) for name in classes]


def test_classes_without_colours_get_different_ones(camvid, make_config):
    dataset = dict(type="BaseSegDataset", metainfo=dict(classes=["a", "b", "c"]))
    model = apis.load_model(with_classes(make_config(camvid), dataset), None, "cpu")
    assert model.dataset_meta["classes"] == ("a", "b", "c")
    assert len(set(model.dataset_meta["palette"])) == 3


@pytest.mark.parametrize("key", ["dataset_meta", "older"])
def test_the_names_of_the_training_come_first(camvid, tmp_path, make_config, key):
    """The network predicts the classes it was trained for, also where it is tested on other ones."""
    dataset = dict(type="CityscapesDataset", metainfo=dict(classes=("person", "road", "car")))
    config = with_classes(make_config(camvid), dataset)
    trained = dict(classes=("x", "y", "z"), palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    meta = dict(dataset_meta=trained) if key == "dataset_meta" else {k.upper(): v for k, v in trained.items()}
    model = apis.load_model(config, weights(config, tmp_path / "1.pth", **meta), "cpu")
    assert model.dataset_meta["classes"] == ("x", "y", "z")
    assert model.dataset_meta["palette"] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    # The same names: the config's colours, which the user may have chosen.
    same = dict(dataset_meta=dict(classes=["person", "road", "car"]))
    model = apis.load_model(config, weights(config, tmp_path / "2.pth", **same), "cpu")
    assert model.dataset_meta["palette"] == [tuple(CITYSCAPES[name]) for name in ("person", "road", "car")]
    # Notes of another network say nothing.
    other = dict(dataset_meta=dict(classes=["person"]))
    model = apis.load_model(config, weights(config, tmp_path / "3.pth", **other), "cpu")
    assert model.dataset_meta["classes"] == ("person", "road", "car")


def test_no_names_at_all(camvid, tmp_path, make_config):
    config = with_classes(make_config(camvid), dict(type="BaseSegDataset"))
    with pytest.raises(UserError, match="BaseSegDataset names no classes"):
        apis.load_model(config, None, "cpu")
    named = weights(config, tmp_path / "1.pth", dataset_meta=dict(classes=["x", "y", "z"]))
    model = apis.load_model(config, named, "cpu")
    assert model.dataset_meta["classes"] == ("x", "y", "z") and len(set(model.dataset_meta["palette"])) == 3
    assert (
        model.dataset_meta["palette"]
        == built_metainfo(dict(type="BaseSegDataset", metainfo=dict(classes=["x", "y", "z"])))["palette"]
    )


def test_names_of_another_number_of_classes_are_refused(camvid, make_config):
    config = make_config(camvid)
    config.model.decode_head.num_classes = 3
    with pytest.raises(
        UserError, match="CamVidDataset, which the config tests on, has 11 classes, the model 3;"
    ):
        apis.load_model(config, None, "cpu")


def test_a_config_that_tests_on_nothing(camvid, make_config):
    config = make_config(camvid)
    config.pop("test_dataloader")
    with pytest.raises(UserError, match=r"no test_dataloader\.dataset"):
        apis.load_model(config, None, "cpu")


@pytest.mark.parametrize(
    ("channels", "values", "message"),
    [
        (1, 3, r"data_preprocessor.mean has 3 values, but model.backbone takes 1 channels.*give 1, or one"),
        (3, 4, "mean has 4 values.*takes 3"),
        (4, 3, "mean has 3 values.*takes 4"),
    ],
)
def test_a_normalisation_of_other_channels_is_refused(camvid, make_config, channels, values, message):
    config = make_config(camvid)
    config.model.backbone.in_channels = channels
    config.model.data_preprocessor.update(mean=[1.0] * values, std=[1.0] * values)
    with pytest.raises(UserError, match=message):
        apis.load_model(config, None, "cpu")


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_one_value_for_all_channels_or_none_is_fine(camvid, make_config, channels):
    config = make_config(camvid)
    config.model.backbone.in_channels = channels
    for values in ([1.0], None):
        config.model.data_preprocessor.update(mean=values, std=values)
        apis.load_model(config, None, "cpu")


def carrying(config, source, path):
    """A checkpoint with the config inside, as training writes it."""
    content = torch.load(source, weights_only=True)
    content["meta"]["cfg"] = config.pretty_text
    torch.save(content, path)
    return path


def test_a_checkpoint_that_carries_its_config_stands_alone(camvid, tmp_path, make_config, make_checkpoint):
    config = make_config(camvid)
    bare = make_checkpoint(config, tmp_path / "bare.pth")
    alone = carrying(config, bare, tmp_path / "alone.pth")
    picture = torch.rand(1, 3, 40, 48)
    wanted = apis.load_model(config, bare, "cpu")
    for source in (alone, str(alone)):
        model = apis.load_model(source, device="cpu")
        assert torch.equal(model(picture), wanted(picture))
        assert model.dataset_meta == wanted.dataset_meta
    segmenter = apis.Segmenter(alone, device="cpu")
    assert segmenter.classes == wanted.dataset_meta["classes"]
    assert repr(segmenter).startswith("Segmenter(alone: 11 classes")
    with pytest.raises(UserError, match=r"bare\.pth carries no config: name the config before"):
        apis.load_model(bare)


def test_a_config_alone_and_weights_in_its_place_are_refused_with_the_fix(camvid, tmp_path, make_config):
    config = make_config(camvid)
    path = tmp_path / "network.py"
    config.dump(path)
    for source, called in ((config, "config "), (path, str(path)), (str(path), str(path))):
        for load in (apis.load_model, apis.Segmenter):
            with pytest.raises(
                UserError, match=r"stands alone: .*checkpoint=None for random weights"
            ) as said:
                load(source)
            assert called in str(said.value)
    assert apis.load_model(path, None, "cpu").cfg.filename == str(path)
    for checkpoint in (None, "b.pth", "network.py"):
        with pytest.raises(
            UserError, match=rf"a\.pth is a file of weights, and stands .* before {checkpoint}"
        ):
            apis.load_model("a.pth", checkpoint)
