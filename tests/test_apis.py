import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from danseg import apis
from danseg.attention import PositionAttention
from danseg.errors import UserError
from danseg.visualization import read_image

NUM_CLASSES = 11


def make_config(
    root, *, head: dict | None = None, scale=(48, 40), mode: dict | None = None, size_divisor=None
):
    """A random network of a few channels on a CamVid tree at ``root``."""
    norm = dict(type="SyncBN")
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=scale, keep_ratio=True),
        dict(type="LoadAnnotations"),
        dict(type="PackSegInputs"),
    ]
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(
            type="CamVidDataset",
            data_root=str(root),
            data_prefix=dict(img_path="val", seg_map_path="valannot"),
            pipeline=pipeline,
        ),
    )
    head = dict(type="DANetHead", pam_channels=4) if head is None else head
    return Config(
        dict(
            default_scope="mmseg",
            model=dict(
                type="EncoderDecoder",
                pretrained="open-mmlab://resnet18_v1c",  # must not be fetched
                data_preprocessor=dict(
                    type="SegDataPreProcessor",
                    mean=[120.0, 110.0, 100.0],
                    std=[60.0, 61.0, 62.0],
                    bgr_to_rgb=True,
                    pad_val=0,
                    seg_pad_val=255,
                    test_cfg=dict(size_divisor=size_divisor) if size_divisor else None,
                ),
                backbone=dict(
                    type="ResNetV1c",
                    depth=18,
                    base_channels=8,
                    stem_channels=8,
                    strides=(1, 2, 1, 1),
                    dilations=(1, 1, 2, 4),
                    norm_cfg=norm,
                ),
                decode_head=dict(
                    in_channels=64, in_index=3, channels=16, num_classes=NUM_CLASSES, norm_cfg=norm, **head
                ),
                train_cfg=dict(),
                test_cfg=mode or dict(mode="whole"),
            ),
            test_dataloader=loader,
            test_evaluator=dict(type="ExactIoUMetric"),
            test_cfg=dict(),
        )
    )


@pytest.fixture
def camvid(tmp_path):
    """Two random frames of 60 x 72 in CamVid's layout."""
    root, rng = tmp_path / "camvid", np.random.default_rng(0)
    for folder in ("val", "valannot"):
        (root / folder).mkdir(parents=True)
    for name in ("a", "b"):
        coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (72, 60), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / "val" / f"{name}.png"), image)
        cv2.imwrite(str(root / "valannot" / f"{name}.png"), rng.integers(0, 12, (60, 72), dtype=np.uint8))
    return root


def make_checkpoint(config, path):
    """Weights at random, with running statistics and a scale that an untrained network lacks."""
    torch.manual_seed(0)
    model = apis.load_model(config, None, "cpu")
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith("gamma.scale"):
            value.fill_(0.8)
        elif name.endswith("conv_seg.weight"):
            value.normal_()
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


@pytest.mark.parametrize(
    "settings",
    [dict(), dict(size_divisor=32), dict(mode=dict(mode="slide", crop_size=(32, 32), stride=(24, 24)))],
    ids=["whole", "padded", "slide"],
)
def test_predict_is_what_the_runner_predicts(camvid, tmp_path, settings):
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


def test_model_carries_the_classes_and_colours_of_its_data_set(camvid):
    from danseg.datasets import CamVidDataset

    config = make_config(camvid)
    model = apis.load_model(config, None, "cpu")
    assert model.dataset_meta["classes"] == CamVidDataset.METAINFO["classes"]
    assert [list(colour) for colour in model.dataset_meta["palette"]] == CamVidDataset.METAINFO["palette"]
    assert not model.training
    assert config.model.pretrained == "open-mmlab://resnet18_v1c", "the caller's config was changed"
    config.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[config.test_dataloader.dataset])
    assert apis.dataset_meta(config)["classes"] == CamVidDataset.METAINFO["classes"]


@pytest.mark.parametrize(
    "settings",
    [dict(), dict(size_divisor=32), dict(mode=dict(mode="slide", crop_size=(32, 32), stride=(24, 24)))],
    ids=["whole", "padded", "slide"],
)
def test_attention_maps_are_rows_of_the_module_on_the_whole_image(camvid, tmp_path, settings):
    config = make_config(camvid, **settings)
    model = apis.load_model(config, make_checkpoint(config, tmp_path / "weights.pth"), "cpu")
    path, positions = str(camvid / "val" / "a.png"), [(71, 0), (10, 50)]
    maps = apis.attention_maps(model, path, positions)
    assert list(maps) == ["decode_head.pam"]
    found = maps["decode_head.pam"]
    # 60 x 72 is resized to 40 x 48: 5 x 6 cells, or 8 x 8 where it is padded to 64 x 64.
    padded = "size_divisor" in settings
    assert found.rows.shape == ((2, 8, 8) if padded else (2, 5, 6))
    np.testing.assert_allclose(found.rows.sum((1, 2)), 1, rtol=1e-5)
    assert found.scale == pytest.approx(0.8)
    assert found.over_image().shape == (2, 60, 72)

    image = cv2.resize(cv2.imread(path), (48, 40), interpolation=cv2.INTER_LINEAR)[..., ::-1].copy()
    x = (
        torch.from_numpy(image).permute(2, 0, 1).float() - torch.tensor([120.0, 110, 100])[:, None, None]
    ) / (torch.tensor([60.0, 61, 62])[:, None, None])
    if padded:
        x = torch.nn.functional.pad(x, (0, 16, 0, 24))
    head = model.decode_head
    with torch.no_grad():
        features = head.pam_in_conv(model.backbone(x[None])[3])
        # pixel (71, 0) lies in the upper right cell, (10, 50) in row int(50.5 / 60 * 5), column 0
        cells = [(0, 5), (4, 0)]
        expected = head.pam.attention_map(features, cells)[0]
    np.testing.assert_allclose(found.rows, expected, rtol=1e-4, atol=1e-7)


def test_positions_outside_the_image_are_refused_with_its_size(camvid):
    model = apis.load_model(make_config(camvid), None, "cpu")
    with pytest.raises(UserError, match="x=72, y=3 .*0 to 71.*0 to 59"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [(72, 3)])
    with pytest.raises(UserError, match="at least one position"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [])


def test_a_model_without_attention_says_so(camvid):
    model = apis.load_model(make_config(camvid, head=dict(type="FCNHead", num_convs=1)), None, "cpu")
    with pytest.raises(UserError, match="FCNHead has no attention"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [(1, 1)])


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_unreadable_image_is_named(camvid, content):
    model = apis.load_model(make_config(camvid), None, "cpu")
    path = camvid / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="broken.png"):
        apis.predict(model, path)
    with pytest.raises(UserError, match="broken.png"):
        apis.attention_maps(model, path, [(0, 0)])


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_arrays_of_another_kind_are_refused(camvid, image):
    model = apis.load_model(make_config(camvid), None, "cpu")
    with pytest.raises(ValueError, match="uint8"):
        apis.predict(model, image)


def test_weights_of_another_network_are_refused(camvid, tmp_path):
    checkpoint = make_checkpoint(make_config(camvid), tmp_path / "weights.pth")
    other = make_config(camvid, head=dict(type="FCNHead", num_convs=1))
    with pytest.raises(UserError, match="weights.pth"):
        apis.load_model(other, checkpoint, "cpu")


def test_maps_of_different_positions_differ(camvid, tmp_path):
    config = make_config(camvid)
    model = apis.load_model(config, make_checkpoint(config, tmp_path / "weights.pth"), "cpu")
    assert isinstance(model.decode_head.pam, PositionAttention)
    found = apis.attention_maps(model, str(camvid / "val" / "a.png"), [(3, 3), (60, 50)])["decode_head.pam"]
    assert not np.allclose(found.rows[0], found.rows[1])
