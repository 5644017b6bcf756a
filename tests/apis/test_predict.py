import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from danseg import apis
from danseg.apis.predict import prepared_batch
from danseg.errors import UserError
from danseg.visualization import read_image

every_test_mode = pytest.mark.parametrize(
    "settings",
    [dict(), dict(size_divisor=32), dict(mode=dict(mode="slide", crop_size=(32, 32), stride=(24, 24)))],
    ids=["whole", "padded", "slide"],
)


@every_test_mode
@pytest.mark.parametrize("kind", ["LeanEncoderDecoder", "EncoderDecoder"])
def test_on_every_device_logits_and_labels_are_the_cpus(
    camvid, tmp_path, settings, kind, make_config, make_checkpoint, device
):
    config = make_config(camvid, **settings)
    config.model.type = kind
    checkpoint, path = make_checkpoint(config, tmp_path / "weights.pth"), camvid / "val" / "a.png"
    model, on_cpu = (apis.load_model(config, checkpoint, where) for where in (device, "cpu"))
    assert {one.device.type for one in model.state_dict().values()} == {device.type}
    with torch.no_grad():
        [found], [want] = (one.test_step(prepared_batch(one, path)) for one in (model, on_cpu))
    assert found.seg_logits.data.device == device
    logits, tolerance = want.seg_logits.data, 1e-4 * want.seg_logits.data.abs().max()
    assert (found.seg_logits.data.cpu() - logits).abs().max() <= tolerance
    best = logits.topk(2, dim=0).values
    clear = (best[0] - best[1] > 2 * tolerance).numpy()
    labels = apis.predict(model, path)
    assert clear.mean() > 0.99 and len(np.unique(labels)) > 1
    assert (labels == apis.predict(on_cpu, path))[clear].all()


@every_test_mode
def test_predict_is_what_the_runner_predicts(camvid, tmp_path, settings, make_config, make_checkpoint):
    config = make_config(camvid, **settings)
    checkpoint = make_checkpoint(config, tmp_path / "weights.pth")
    model = apis.load_model(config, checkpoint, "cpu")

    config.work_dir, config.load_from, config.model.pretrained = str(tmp_path / "work"), str(checkpoint), None
    init_default_scope("mmseg")
    runner = Runner.from_cfg(config)
    runner.load_or_resume()
    runner.model.eval()
    compared = 0
    for batch in runner.test_loop.dataloader:
        with torch.no_grad():
            sample = runner.model.test_step(batch)[0]
        expected = sample.pred_sem_seg.data[0].numpy()
        labels = apis.predict(model, sample.img_path)
        assert labels.shape == (60, 72) and labels.dtype == np.int64
        assert len(np.unique(expected)) > 1, "a constant prediction compares nothing"
        assert (labels == expected).all()
        assert (apis.predict(model, read_image(sample.img_path)) == expected).all()
        compared += 1
    assert compared == 2


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_unreadable_image_is_named(camvid, content, make_config):
    model = apis.load_model(make_config(camvid), None, "cpu")
    path = camvid / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="broken.png"):
        apis.predict(model, path)
    with pytest.raises(UserError, match="broken.png"):
        apis.attention_maps(model, path, [(0, 0)])


@pytest.mark.parametrize("image", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 0, 3))])
def test_arrays_of_another_kind_are_refused(camvid, image, make_config):
    model = apis.load_model(make_config(camvid), None, "cpu")
    for run in (
        lambda: apis.predict(model, image),
        lambda: apis.attention_maps(model, image, [(0, 0)]),
        lambda: apis.read_picture(model, image),
    ):
        with pytest.raises(ValueError, match=r"image must be (\(H, W|uint8)"):
            run()


def test_pixels_that_the_pipeline_would_cut_are_refused_by_every_call(camvid, make_config):
    model = apis.load_model(make_config(camvid), None, "cpu")
    path = camvid / "deep.png"
    cv2.imwrite(str(path), np.full((20, 30, 3), 4000, np.uint16))
    for run in (
        lambda: apis.predict(model, path),
        lambda: apis.attention_maps(model, path, [(0, 0)]),
        lambda: apis.read_picture(model, path),
    ):
        with pytest.raises(
            UserError, match=r"deep\.png.*uint16, which would be cut to 8 bits: .*0 4095 0 255"
        ):
            run()


@pytest.mark.parametrize("how", [3, 6])
def test_labels_and_attention_are_those_of_the_upright_picture(camvid, make_config, make_checkpoint, how):
    config = make_config(camvid)
    model = apis.load_model(config, make_checkpoint(config, camvid / "weights.pth"), "cpu")
    with Image.open(camvid / "val" / "a.png") as picture:
        upright = np.asarray(picture)
        exif = Image.Exif()
        exif[0x0112] = how
        stored = Image.fromarray(np.rot90(upright, {3: 2, 6: 1}[how]).copy())
        stored.save(camvid / "turned.png", exif=exif)
    assert (apis.read_picture(model, camvid / "turned.png") == upright).all()
    labels = apis.predict(model, camvid / "turned.png")
    assert len(np.unique(labels)) > 1 and (labels == apis.predict(model, upright)).all()
    asked = [(70, 3), (0, 59)]  # in the upright picture of 60 x 72
    [(path, turned)] = apis.attention_maps(model, camvid / "turned.png", asked).items()
    expected = apis.attention_maps(model, upright, asked)[path]
    np.testing.assert_array_equal(turned.over_image(), expected.over_image())


def test_labels_are_left_out_of_the_pipeline_whatever_loads_them(camvid, make_config):
    config = make_config(camvid)
    expected = apis.predict(apis.load_model(config, None, "cpu"), np.zeros((9, 9, 3), np.uint8)).shape
    for kind in ("mmseg.LoadAnnotations", "LoadBiomedicalAnnotation", "LoadDepthAnnotation"):
        config.test_dataloader.dataset.pipeline[2] = dict(type=kind)
        model = apis.load_model(config, None, "cpu")
        assert apis.predict(model, np.zeros((9, 9, 3), np.uint8)).shape == expected


@pytest.mark.parametrize(("channels", "color_type"), [(1, "grayscale"), (4, "unchanged")])
def test_a_network_of_other_channels_predicts_and_shows_its_attention(
    camvid, make_config, make_checkpoint, channels, color_type, device
):
    config = make_config(camvid)
    config.model.backbone.in_channels = channels
    config.model.data_preprocessor.update(mean=[120.0], std=[60.0], bgr_to_rgb=False)
    config.test_dataloader.dataset.pipeline[0].color_type = color_type
    model = apis.load_model(config, make_checkpoint(config, camvid / "weights.pth"), device)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 72, 4), dtype=np.uint8)
    pixels = pixels if channels == 4 else pixels[..., 0]
    path = camvid / "picture.png"
    Image.fromarray(pixels).save(path)
    prepared = apis.prepare_for_inference(model)
    labels = apis.predict(model, path)
    assert len(np.unique(labels)) > 1
    assert (apis.predict(model, pixels) == labels).all()
    assert (apis.predict(prepared, path) == labels).mean() > 0.99
    [maps] = apis.attention_maps(model, path, [(3, 4)]).values()
    assert maps.over_image().shape == (1, 60, 72)
    with pytest.raises(
        UserError if channels == 4 else ValueError, match=r"as LoadImageFromFile\(color_type="
    ):
        apis.predict(model, camvid / "val" / "a.png" if channels == 4 else np.zeros((9, 9, 3), np.uint8))


def test_a_grey_file_is_given_to_a_network_of_colours_as_in_training(camvid, make_config, make_checkpoint):
    config = make_config(camvid)
    model = apis.load_model(config, make_checkpoint(config, camvid / "weights.pth"), "cpu")
    grey = read_image(camvid / "val" / "a.png")[..., 0]
    Image.fromarray(grey).save(camvid / "grey.png")
    expected = apis.predict(model, np.dstack([grey] * 3))
    assert (apis.predict(model, camvid / "grey.png") == expected).all()
    assert (apis.predict(model, grey) == expected).all()
