"""An exported file gives what its checkpoint gives, through every function of danseg.apis, or one message."""

import copy

import cv2
import numpy as np
import pytest
import torch

from danseg import apis
from danseg.apis.finished import settings_of
from danseg.apis.preparation import prepared_to_leave
from danseg.errors import UserError
from exported_files import SUFFIXES, write_model

FCN = dict(type="FCNHead", num_convs=1)
SLIDE = dict(mode="slide", crop_size=(32, 32), stride=(20, 20))


@pytest.fixture
def trained(camvid, make_config, make_checkpoint, tmp_path):
    """``trained(**settings)``: a model from a checkpoint, as ``make_config`` takes the settings.

    ``change`` changes the config.
    """

    def load(change=lambda config: None, **settings):
        config = make_config(camvid, **{"head": FCN, **settings})
        change(config)
        return apis.load_model(config, make_checkpoint(config, tmp_path / "best.pth"), "cpu")

    return load


@pytest.fixture
def pictures(camvid):
    return [camvid / "val" / "a.png", camvid / "val" / "b.png"]


def same(found, expected):
    """Labels as equal as the ones of a file in float32 are: 99.99 %, which here is all but one."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert np.count_nonzero(one != other) <= max(1, other.size // 10_000)
        assert len(np.unique(other)) > 1  # a network that says something


@pytest.mark.parametrize(
    "suffix, inside",
    [
        *((suffix, False) for suffix in SUFFIXES if suffix != ".pt2"),
        pytest.param(".pt2", False, marks=pytest.mark.slow),  # for any size, PyTorch reads it in seconds
        (".onnx", True),
        (".pt", True),
    ],
)
def test_predictions_are_the_checkpoints(trained, pictures, tmp_path, suffix, inside):
    model = trained()
    path = write_model(tmp_path / f"tiny{suffix}", model, with_preprocessing=inside)
    loaded = apis.load_model(path, device="cpu")
    assert loaded.dataset_meta == model.dataset_meta and not loaded.training
    same(apis.predict(loaded, pictures), apis.predict(model, pictures))
    same(apis.predict(loaded, pictures, batch_size=2), apis.predict(model, pictures, batch_size=2))
    odd = np.ascontiguousarray(apis.read_picture(model, pictures[0])[:41, :53])
    same([apis.predict(loaded, odd)], [apis.predict(model, odd)])


def test_a_file_in_16_bits(trained, pictures, tmp_path):
    model = trained()
    narrow = prepared_to_leave(model, precision="float16")
    segmenter = apis.Segmenter(write_model(tmp_path / "narrow.onnx", narrow, precision="float16"))
    assert segmenter.precision == "float16" and "float16 on cpu" in repr(segmenter)
    for found, expected in zip(segmenter(pictures), apis.predict(model, pictures), strict=True):
        assert (found.labels == expected).mean() > 0.99


def test_a_segmenter(trained, pictures, tmp_path):
    model = trained()
    segmenter = apis.Segmenter(str(write_model(tmp_path / "tiny.onnx", model)))
    expected = apis.Segmenter(model.cfg, tmp_path / "best.pth", device="cpu")(pictures, probabilities=True)
    found = segmenter(pictures, probabilities=True)
    same([one.labels for one in found], [one.labels for one in expected])
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one.probabilities, other.probabilities, atol=1e-5)
        assert np.array_equal(one.overlay(), other.overlay()) and one.areas().keys() == other.areas().keys()


@pytest.mark.parametrize(
    "settings",
    [
        dict(mode=SLIDE, scale=(72, 60)),
        dict(size_divisor=32),
        dict(head=dict(FCN, align_corners=True)),
    ],
    ids=["slide", "padded", "corners"],
)
def test_what_a_config_says_of_logits_holds(trained, pictures, tmp_path, settings):
    model = trained(**settings)
    loaded = apis.load_model(write_model(tmp_path / "tiny.onnx", model), device="cpu")
    same(apis.predict(loaded, pictures), apis.predict(model, pictures))
    for found, expected in zip(
        apis.Segmenter(tmp_path / "tiny.onnx")(pictures, probabilities=True),
        apis.Segmenter(model.cfg, tmp_path / "best.pth")(pictures, probabilities=True),
        strict=True,
    ):
        assert np.allclose(found.probabilities, expected.probabilities, atol=1e-5)


def test_a_head_of_one_channel(trained, pictures, tmp_path):
    def change(config):
        config.model.decode_head.update(num_classes=2, out_channels=1, threshold=0.4)
        config.test_dataloader.dataset.metainfo = dict(classes=["road", "car"])

    model = trained(change)
    segmenter = apis.Segmenter(write_model(tmp_path / "tiny.onnx", model))
    scores = [one.probabilities[1] for one in segmenter(pictures, probabilities=True)]
    model.decode_head.threshold = float(np.median(scores))
    loaded = apis.load_model(write_model(tmp_path / "tiny.onnx", model))
    same(apis.predict(loaded, pictures), apis.predict(model, pictures))


def test_tiles(trained, pictures, tmp_path):
    pytest.importorskip("rasterio")
    model = trained()
    big = cv2.resize(cv2.imread(str(pictures[0])), (200, 152), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "big.png"), big)
    made = []
    for number, (network, tile) in enumerate(
        [
            (model, 64),
            (apis.load_model(write_model(tmp_path / "any.onnx", model), device="cpu"), 64),
            (apis.load_model(write_model(tmp_path / "fixed.xml", model, size=(64, 64), batch=1)), 64),
        ]
    ):
        out = tmp_path / f"{number}.tif"
        apis.predict_large(network, tmp_path / "big.png", out, tile=tile, overlap=16)
        made.append(cv2.imread(str(out), cv2.IMREAD_UNCHANGED))
    same(made[1:], [made[0]] * 2)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt"])
def test_a_file_for_one_size(trained, pictures, tmp_path, suffix):
    """Its pictures are those that the pipeline makes so large; others are refused, and never resized."""
    model = trained()
    path = write_model(tmp_path / f"fixed{suffix}", model, size=(40, 48), batch=1)
    loaded = apis.load_model(path, device="cpu")
    same(apis.predict(loaded, pictures, batch_size=2), apis.predict(model, pictures, batch_size=2))
    other = np.zeros((60, 60, 3), np.uint8)
    for kind in (UserError, ValueError):
        with pytest.raises(kind, match=r"for inputs of 40 x 48 .* this one has 40 x 40; .*--dynamic"):
            apis.predict(loaded, other)
    pytest.importorskip("rasterio")
    with pytest.raises(UserError, match=r"for inputs of 40 x 48 .* has 60 x 64"):
        apis.predict_large(loaded, pictures[0], tmp_path / "a.tif", tile=64, overlap=0)


def test_a_file_of_labels(trained, pictures, tmp_path):
    model = trained(scale=(72, 60))  # the network's input has the pictures' size
    path = write_model(tmp_path / "labels.onnx", model, labels=True, with_preprocessing=True)
    loaded = apis.load_model(path, device="cpu")
    expected = apis.predict(model, pictures)
    same(apis.predict(loaded, pictures), expected)
    same([apis.Segmenter(path)(pictures[0]).labels], expected[:1])
    says = r"labels\.onnx gives labels alone, .*export without --labels"
    with pytest.raises(UserError, match=says):
        apis.Segmenter(path)(pictures[0], probabilities=True)
    for call in (
        lambda: apis.predict_large(loaded, pictures[0], tmp_path / "a.tif", tile=64, overlap=0),
        lambda: loaded(torch.zeros(1, 3, 40, 48), mode="tensor"),
    ):
        with pytest.raises(UserError, match=says):
            call()


def test_labels_of_another_size_are_those_of_the_nearest_pixels(trained, pictures, tmp_path):
    model = trained(scale=(36, 30))
    loaded = apis.load_model(write_model(tmp_path / "labels.onnx", model, labels=True), device="cpu")
    small = apis.load_model(write_model(tmp_path / "logits.onnx", model), device="cpu")
    picture = cv2.resize(cv2.imread(str(pictures[0])), (36, 30))
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    labels = apis.predict(small, tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "b.png"), np.repeat(np.repeat(picture, 2, 0), 2, 1))
    found = apis.predict(loaded, tmp_path / "b.png")
    assert found.shape == (60, 72) and found.dtype == np.int64
    # Each label stands for the four pixels that it covers.
    assert np.array_equal(found, np.repeat(np.repeat(found[::2, ::2], 2, 0), 2, 1))
    assert (found[::2, ::2] == labels).mean() > 0.9  # of a picture that was resized again


def test_what_a_file_of_labels_or_of_pictures_cannot_do(trained, tmp_path):
    with pytest.raises(UserError, match="averages the logits of windows .*export without --labels"):
        apis.load_model(write_model(tmp_path / "a.onnx", trained(mode=SLIDE), labels=True))
    with pytest.raises(UserError, match="pads pictures after that .*export without --with-preprocessing"):
        apis.load_model(write_model(tmp_path / "b.onnx", trained(size_divisor=32), with_preprocessing=True))


def test_numbers_that_are_no_picture_of_8_bits(trained, tmp_path):
    model = apis.load_model(write_model(tmp_path / "a.onnx", trained(), with_preprocessing=True))
    for value in (-1.0, 0.5, 256.0):
        with pytest.raises(ValueError, match="takes pictures of 8 bits, whole numbers from 0 to 255"):
            model(torch.full((1, 3, 40, 48), value), mode="tensor")


def test_what_is_refused_of_an_exported_network(trained, pictures, tmp_path):
    model = trained()
    path = write_model(tmp_path / "tiny.onnx", model)
    loaded = apis.load_model(path)
    with pytest.raises(UserError, match="was prepared before it was written and computes in float32"):
        apis.prepare_for_inference(loaded)
    with pytest.raises(UserError, match="export it again in another --precision"):
        apis.Segmenter(path, precision="bfloat16")
    with pytest.raises(UserError, match="is an exported network, whose attention .*CONFIG CHECKPOINT"):
        apis.attention_maps(loaded, pictures[0], [(1, 1)])
    with pytest.raises(UserError, match="is an exported network, whose attention .*CONFIG CHECKPOINT"):
        apis.explore(loaded, pictures[0])
    with pytest.raises(UserError, match="is an exported network, which has no gradients.*CONFIG CHECKPOINT"):
        apis.class_activation_map(loaded, pictures[0], (1, 1))
    batch = dict(inputs=torch.zeros(2, 3, 40, 48), data_samples=[])
    with pytest.raises(UserError, match="cannot be trained: .*train the checkpoint"):
        loaded.train()(**batch, mode="loss")
    with pytest.raises(UserError, match=r"tiny\.onnx is an exported network, .*name it alone"):
        apis.load_model(model.cfg, path)
    with pytest.raises(UserError, match=r"tiny\.onnx is a file of weights, and stands where a config does"):
        apis.load_model(path, tmp_path / "best.pth")


def test_a_file_whose_output_is_not_what_it_describes(trained, tmp_path):
    model = trained()
    path = write_model(tmp_path / "tiny.onnx", model)
    loaded = apis.load_model(path)
    loaded.decode_head.out_channels = 7
    with pytest.raises(
        UserError, match=r"gives an output of shape \(1, 11, .* describes logits of 7 channels"
    ):
        loaded(torch.zeros(1, 3, 40, 48), mode="tensor")


def test_two_files_are_told_apart_like_two_checkpoints(trained, tmp_path):
    model = trained()
    found = [
        settings_of(apis.load_model(write_model(tmp_path / name, model, **how), device=device))
        for name, how, device in [
            *(("a.onnx", {}, None), ("b.onnx", {}, "cpu")),
            *(("c.onnx", dict(batch=1), None), ("d.xml", {}, None)),
        ]
    ]
    assert found[0] == found[1]
    settings = [one["weights"] for one in found]
    assert len(set(settings)) == 3
    with torch.no_grad():
        model.decode_head.conv_seg.bias.add_(1)
    path = write_model(tmp_path / "d.xml", model)  # whose weights lie beside it
    assert settings_of(apis.load_model(path))["weights"] != settings[3]


def test_a_model_is_copied_like_others(trained, pictures, tmp_path):
    model = apis.load_model(write_model(tmp_path / "tiny.onnx", trained()), device="cpu")
    same(apis.predict(copy.deepcopy(model), pictures), apis.predict(model, pictures))


def test_a_device_that_the_runtime_does_not_have(trained, tmp_path):
    path = write_model(tmp_path / "tiny.onnx", trained())
    with pytest.raises(UserError, match="device 'tpu' is none that ONNX Runtime"):
        apis.load_model(path, device="tpu")
    segmenter = apis.Segmenter(path, device="cpu")
    assert segmenter.device == torch.device("cpu")
    assert repr(segmenter) == "Segmenter(tiny: 11 classes, float32 on cpu)"
