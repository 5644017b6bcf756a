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


@pytest.fixture
def model(camvid, make_config, make_checkpoint):
    """A network whose pipeline resizes, with labels that change from place to place."""
    config = make_config(camvid)
    return apis.load_model(config, make_checkpoint(config, camvid / "weights.pth"), "cpu")


def pictures(count: int, size=(60, 72)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = (rng.integers(0, 256, (6, 7, 3), dtype=np.uint8) for _ in range(count))
    return [cv2.resize(one, size[::-1], interpolation=cv2.INTER_CUBIC) for one in coarse]


def test_a_list_gives_a_list_in_its_order_of_all_kinds_and_sizes(model, camvid):
    path = camvid / "val" / "a.png"
    first, second, third = pictures(3)
    images = [
        path,
        first,
        pictures(1, (41, 97))[0],
        torch.from_numpy(second).permute(2, 0, 1),
        third[..., 0],
        path.read_bytes(),
        Image.fromarray(second),
        str(path),
        pictures(1, (90, 50))[0],
        first,
    ]
    alone = [apis.predict(model, one) for one in images]
    assert len({one.tobytes() for one in alone}) == 6, "images with equal labels compare nothing"
    for given in (images, tuple(images)):
        for batch_size in (1, 2, 3, 100):
            found = apis.predict(model, given, batch_size=batch_size)
            assert isinstance(found, list) and len(found) == len(images)
            for one, other in zip(found, alone, strict=True):
                assert one.dtype == np.int64 and one.shape == other.shape
                different = (one != other).mean()
                assert different == 0 if batch_size == 1 else different < 1e-3
    assert apis.predict(model, []) == []
    [only] = apis.predict(model, [path])
    assert (only == alone[0]).all()


def batches(model) -> list[tuple[int, ...]]:
    """The shapes of what goes through a network from now on."""
    seen: list[tuple[int, ...]] = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    return seen


def test_images_of_equal_size_go_through_the_network_together(model):
    wide, high = pictures(5), pictures(2, (72, 60))
    seen = batches(model)
    apis.predict(model, [wide[0], high[0], *wide[1:], high[1]], batch_size=2)
    by_size = {size: [shape[0] for shape in seen if shape[2:] == size] for size in {one[2:] for one in seen}}
    assert sorted(by_size.values()) == [[2], [2, 2, 1]]
    seen.clear()
    apis.predict(model, [*wide, *high])
    assert [shape[0] for shape in seen] == [1] * 7


def test_a_list_of_many_sizes_is_not_kept_in_memory_until_its_end(near_sighted):
    model = near_sighted(num_classes=3)
    images = [one for size in range(20) for one in pictures(1, (40 + size, 80))]
    seen, read = batches(model), 0

    class Counted(list):
        def __iter__(self):
            nonlocal read
            for one in super().__iter__():
                read += 1
                assert read - len(seen) <= 4, "it waits for more images of each size"
                yield one

    assert len(apis.predict(model, Counted(images), batch_size=50)) == 20 == read


@pytest.mark.parametrize("head", ["DANetHead", "CCNetHead", "FCNHead"])
@pytest.mark.parametrize("mode", [None, dict(mode="slide", crop_size=(32, 32), stride=(24, 24))])
def test_a_batch_changes_labels_only_where_two_classes_tie(camvid, make_config, make_checkpoint, head, mode):
    extra = dict(pam_channels=4) if head == "DANetHead" else {}
    config = make_config(camvid, head=dict(type=head, **extra), mode=mode)
    model = apis.load_model(config, make_checkpoint(config, camvid / "weights.pth"), "cpu")
    images = pictures(6)
    together = apis.predict(model, images, batch_size=6)
    with torch.no_grad():
        alone = [model.test_step(prepared_batch(model, one))[0] for one in images]
    for found, one in zip(together, alone, strict=True):
        best = one.seg_logits.data.topk(2, dim=0).values
        clear = (best[0] - best[1] > 1e-4 * best[0].abs().max()).numpy()
        labels = one.pred_sem_seg.data[0].numpy()
        assert clear.mean() > 0.99 and len(np.unique(labels)) > 1
        assert (found == labels)[clear].all()


@pytest.mark.parametrize("options", [{}, dict(batch_size=3)])
def test_an_image_of_a_list_is_named_by_its_place(model, camvid, options):
    good, path = pictures(1)[0], camvid / "val" / "a.png"
    damaged = path.read_bytes()[:-60]
    with pytest.raises(
        UserError, match=rf"^images\[2\]: image of {len(damaged)} bytes cannot be read: a PNG"
    ):
        apis.predict(model, [good, path, damaged], **options)
    with pytest.raises(
        UserError, match=r"^images\[1\]: image .*nowhere\.png cannot be read: it does not exist"
    ):
        apis.predict(model, [good, camvid / "nowhere.png"], **options)
    with pytest.raises(ValueError, match=r"^images\[1\]: image must be uint8, 0 to 255, got float32"):
        apis.predict(model, [good, good.astype(np.float32)], **options)
    with pytest.raises(ValueError, match=r"^images\[0\]: image must be a path, the bytes .* got NoneType"):
        apis.predict(model, [None, good], **options)
    with pytest.raises(ValueError, match="^LeanEncoderDecoder is in|^EncoderDecoder is in training mode"):
        apis.predict(model.train(), [good, good], **options)


def test_a_list_is_for_predict_alone(model):
    for call in (
        lambda: apis.predict(model, [pictures(2), pictures(1)[0]]),
        lambda: apis.attention_maps(model, pictures(2), [(0, 0)]),
        lambda: apis.read_picture(model, pictures(2)),
    ):
        with pytest.raises(ValueError, match="image must be a single picture here, got a list of 2"):
            call()


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, "2", None])
def test_a_batch_size_that_is_none_is_refused(model, batch_size):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got"):
        apis.predict(model, pictures(1), batch_size=batch_size)


def test_pictures_of_other_channels_are_refused_by_what_they_are(camvid, make_config):
    config = make_config(camvid)
    config.test_dataloader.dataset.pipeline[0].color_type = "unchanged"
    model = apis.load_model(config, None, "cpu")
    rgba = np.zeros((9, 9, 4), np.uint8)
    path = camvid / "rgba.png"
    Image.fromarray(rgba).save(path)
    for kind, error, name in (
        (path, UserError, r"image .*rgba\.png"),
        (path.read_bytes(), UserError, r"image of \d+ bytes"),
        (Image.open(path), UserError, r"image .*rgba\.png"),
        (Image.fromarray(rgba), UserError, r"image \(PIL, RGBA, 9x9\)"),
        (rgba, ValueError, "image"),
        (torch.from_numpy(np.zeros((4, 9, 9), np.uint8)), ValueError, "image"),
    ):
        with pytest.raises(error, match=f"^{name} has 4 channels as LoadImageFromFile"):
            apis.predict(model, kind)
