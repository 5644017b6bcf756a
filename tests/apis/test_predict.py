import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from danseg import apis
from danseg.errors import UserError
from danseg.visualization import read_image


@pytest.mark.parametrize(
    "settings",
    [dict(), dict(size_divisor=32), dict(mode=dict(mode="slide", crop_size=(32, 32), stride=(24, 24)))],
    ids=["whole", "padded", "slide"],
)
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


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_arrays_of_another_kind_are_refused(camvid, image, make_config):
    model = apis.load_model(make_config(camvid), None, "cpu")
    with pytest.raises(ValueError, match="uint8"):
        apis.predict(model, image)
