import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import mmseg.apis
import numpy as np
import pytest
import torch
from mmseg.registry import TRANSFORMS
from PIL import Image

from danseg import apis
from danseg.errors import UserError
from danseg.visualization import read_image

every_test_mode = pytest.mark.parametrize(
    "settings",
    [dict(), dict(size_divisor=32), dict(mode=dict(mode="slide", crop_size=(32, 32), stride=(24, 24)))],
    ids=["whole", "padded", "slide"],
)


@pytest.fixture
def trained(camvid, make_config, make_checkpoint):
    """``trained(**settings)``: config, checkpoint, and the path of an image of 60 x 72."""

    def make(**settings):
        config = make_config(camvid, **settings)
        return config, make_checkpoint(config, camvid / "weights.pth"), camvid / "val" / "a.png"

    return make


@pytest.mark.filterwarnings("ignore:dataset_meta or class names are not saved")
@every_test_mode
@pytest.mark.parametrize("batch_size", [1, 2])
def test_labels_and_probabilities_are_those_of_mmsegs_inference(trained, settings, batch_size):
    config, checkpoint, path = trained(**settings)
    paths = [str(path), str(path.with_name("b.png"))]
    given = config.copy()
    given.test_pipeline = given.test_dataloader.dataset.pipeline  # where mmseg's function looks for it
    theirs = mmseg.apis.inference_model(mmseg.apis.init_model(given, str(checkpoint), device="cpu"), paths)
    segmenter = apis.Segmenter(config, checkpoint, device="cpu")
    ours = segmenter(paths, probabilities=True, batch_size=batch_size)
    for one, other, file in zip(ours, theirs, paths, strict=True):
        logits = other.seg_logits.data.double().numpy()
        expected = np.exp(logits - logits.max(0))
        expected /= expected.sum(0)
        assert one.probabilities.dtype == np.float32 and one.probabilities.shape == (11, 60, 72)
        np.testing.assert_allclose(one.probabilities, expected, atol=2e-5)
        np.testing.assert_allclose(one.probabilities.sum(0), 1, atol=1e-5)
        labels = other.pred_sem_seg.data[0].numpy()
        assert len(np.unique(labels)) > 1 and (one.labels == labels).all()
        assert one.labels.dtype == np.int64
        np.testing.assert_array_equal(one.image, read_image(file))
    assert not np.array_equal(ours[0].labels, ours[1].labels)


def test_a_call_is_load_prepare_and_predict(trained, device):
    config, checkpoint, path = trained()
    segmenter = apis.Segmenter(config, checkpoint, device=device, precision="bfloat16")
    model = apis.prepare_for_inference(apis.load_model(config, checkpoint, device), precision="bfloat16")
    assert segmenter.device.type == device.type and segmenter.precision == "bfloat16"
    assert next(segmenter.model.backbone.parameters()).dtype == torch.bfloat16
    assert segmenter.classes == model.dataset_meta["classes"] and len(segmenter.classes) == 11
    assert segmenter.palette == model.dataset_meta["palette"]
    with_them, without = segmenter(path, probabilities=True), segmenter(path)
    assert without.probabilities is None and with_them.probabilities.dtype == np.float32
    for one in (with_them, without):
        np.testing.assert_array_equal(one.labels, apis.predict(model, path))
        assert one.classes == segmenter.classes and one.palette == segmenter.palette
    if device.type == "cpu":
        np.testing.assert_array_equal(with_them.probabilities.argmax(0), with_them.labels)


def test_a_file_of_a_config_is_taken_and_named(trained, tmp_path):
    config, checkpoint, path = trained()
    config.dump(tmp_path / "<my>_network.py")
    segmenter = apis.Segmenter(tmp_path / "<my>_network.py", str(checkpoint), device="cpu")
    assert repr(segmenter) == "Segmenter(<my>_network: 11 classes, float32 on cpu)"
    page = segmenter._repr_html_()
    assert "&lt;my&gt;_network: 11 classes, float32 on cpu" in page and "<my>" not in page
    assert re.findall(r"</span> ([\w]+)</span>", page) == list(segmenter.classes)
    colours = re.findall(r"rgb\((\d+), (\d+), (\d+)\)", page)
    assert [tuple(map(int, one)) for one in colours] == [tuple(one) for one in segmenter.palette]
    assert repr(apis.Segmenter(config, checkpoint, device="cpu")).startswith("Segmenter(DANetHead: ")


def test_mistakes_are_those_of_the_single_steps(trained, tmp_path):
    config, checkpoint, path = trained()
    for arguments, message in (
        (dict(precision="int8"), "precision must be one of"),
        (dict(precision="float16"), "float16 needs a GPU"),
        (dict(device="tpu"), "choose one of cpu"),
    ):
        with pytest.raises(UserError, match=message):
            apis.Segmenter(config, checkpoint, **{"device": "cpu", **arguments})
    with pytest.raises(UserError, match=r"nothing\.pth"):
        apis.Segmenter(config, tmp_path / "nothing.pth", device="cpu")
    segmenter = apis.Segmenter(config, checkpoint, device="cpu")
    with pytest.raises(UserError, match=r"^images\[1\]: image .*none\.png cannot be read"):
        segmenter([path, tmp_path / "none.png"])
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        segmenter([path], batch_size=0)


def test_a_turned_picture_is_drawn_on_upright(trained):
    config, checkpoint, path = trained()
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as picture:
        picture.save(path.with_name("turned.png"), exif=exif)
    segmenter = apis.Segmenter(config, checkpoint, device="cpu")
    for kind in (path.with_name("turned.png"), path.with_name("turned.png").read_bytes()):
        one = segmenter(kind, probabilities=True)
        assert one.labels.shape == (72, 60) and one.probabilities.shape == (11, 72, 60)
        np.testing.assert_array_equal(one.image, np.rot90(read_image(path), -1))
        assert one.overlay().shape == (72, 60, 3)


def test_a_picture_is_shown_before_the_pipeline_changes_it(trained):
    """A later step may write into the picture that was loaded."""

    @TRANSFORMS.register_module(force=True)
    class Blackens:
        def __call__(self, results):
            results["img"][:] = 0
            return results

    config, checkpoint, path = trained()
    config.test_dataloader.dataset.pipeline.insert(1, dict(type="Blackens"))
    one = apis.Segmenter(config, checkpoint, device="cpu")(path)
    np.testing.assert_array_equal(one.image, read_image(path))


def test_several_threads_share_one(trained):
    config, checkpoint, path = trained()
    segmenter = apis.Segmenter(config, checkpoint, device="cpu")
    pictures = [read_image(path)[:, ::step] for step in (1, -1, 2, -2)]
    expected = [segmenter(one, probabilities=True) for one in pictures]
    assert len({one.labels.tobytes() for one in expected}) == 4
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = pool.map(lambda one: segmenter([one, one], probabilities=True)[1], pictures)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one.labels, other.labels)
                np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_its_network_is_for_the_other_functions(trained):
    config, checkpoint, path = trained()
    segmenter = apis.Segmenter(config, checkpoint, device="cpu")
    content = path.read_bytes()
    [(module, maps)] = apis.attention_maps(segmenter.model, content, [(3, 4)]).items()
    [(_, expected)] = apis.attention_maps(segmenter.model, path, [(3, 4)]).items()
    np.testing.assert_array_equal(maps.rows, expected.rows)
    bgr = cv2.imread(str(path))
    [(_, found)] = apis.attention_maps(segmenter.model, bgr, [(3, 4)], channel_order="bgr").items()
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(
        apis.read_picture(segmenter.model, bgr, channel_order="bgr"), read_image(path)
    )
