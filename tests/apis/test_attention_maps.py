import cv2
import numpy as np
import pytest
import torch

from danseg import apis
from danseg.attention import PositionAttention
from danseg.errors import UserError


@pytest.mark.parametrize(
    "settings",
    [dict(), dict(size_divisor=32), dict(mode=dict(mode="slide", crop_size=(32, 32), stride=(24, 24)))],
    ids=["whole", "padded", "slide"],
)
def test_attention_maps_are_rows_of_the_module_on_the_whole_image(
    camvid, tmp_path, settings, make_config, make_checkpoint
):
    config = make_config(camvid, **settings)
    model = apis.load_model(config, make_checkpoint(config, tmp_path / "weights.pth"), "cpu")
    path, positions = str(camvid / "val" / "a.png"), [(71, 0), (10, 50)]
    maps = apis.attention_maps(model, path, positions)
    assert list(maps) == ["decode_head.pam"]
    found = maps["decode_head.pam"]
    # 60 x 72 is resized to 40 x 48: 5 x 6 cells, or 8 x 8 if it is padded to 64 x 64.
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


def test_positions_outside_the_image_are_refused_with_its_size(camvid, make_config):
    model = apis.load_model(make_config(camvid), None, "cpu")
    with pytest.raises(UserError, match="x=72, y=3 .*0 to 71.*0 to 59"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [(72, 3)])
    with pytest.raises(UserError, match="at least one position"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [])


def test_a_model_without_attention_says_so(camvid, make_config):
    model = apis.load_model(make_config(camvid, head=dict(type="FCNHead", num_convs=1)), None, "cpu")
    with pytest.raises(UserError, match="FCNHead has no attention"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [(1, 1)])


def test_maps_of_different_positions_differ(camvid, tmp_path, make_config, make_checkpoint):
    config = make_config(camvid)
    model = apis.load_model(config, make_checkpoint(config, tmp_path / "weights.pth"), "cpu")
    assert isinstance(model.decode_head.pam, PositionAttention)
    found = apis.attention_maps(model, str(camvid / "val" / "a.png"), [(3, 3), (60, 50)])["decode_head.pam"]
    assert not np.allclose(found.rows[0], found.rows[1])
