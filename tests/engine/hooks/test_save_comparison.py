"""The hook behind tools/test.py --show-dir."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.structures import PixelData
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from danseg import visualization
from danseg.engine.hooks import SaveComparison
from danseg.errors import UserError
from danseg.visualization import comparison_figure, read_image, save_figure

META = dict(classes=("road", "sky"), palette=[(128, 64, 128), (70, 130, 180)])


@pytest.fixture
def tested(tmp_path):
    """A runner that tests one frame, and the output of its model."""
    rng = np.random.default_rng(0)
    path = tmp_path / "city_000001.png"
    cv2.imwrite(str(path), rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    truth, prediction = rng.integers(0, 2, (2, 20, 30))
    sample = SegDataSample(
        metainfo=dict(img_path=str(path)),
        gt_sem_seg=PixelData(data=torch.from_numpy(truth)[None]),
        pred_sem_seg=PixelData(data=torch.from_numpy(prediction)[None]),
    )
    pipeline = Compose([dict(type="LoadImageFromFile")])
    dataset = SimpleNamespace(metainfo=META, pipeline=pipeline)
    runner = SimpleNamespace(test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)))
    return runner, sample, truth, prediction


def test_a_comparison_is_written_for_every_frame(tested, tmp_path):
    runner, sample, truth, prediction = tested
    hook = HOOKS.build(dict(type="SaveComparison", out_dir=str(tmp_path / "shown")))
    hook.after_test_iter(runner, 0, outputs=[sample])
    image = read_image(sample.img_path)
    expected = save_figure(
        comparison_figure(image, truth, prediction, name="city_000001", **META), tmp_path / "expected.png"
    )
    assert [path.name for path in (tmp_path / "shown").iterdir()] == ["city_000001.png"]
    assert (read_image(tmp_path / "shown" / "city_000001.png") == read_image(expected)).all()


def test_labels_of_a_single_channel_are_drawn_although_they_are_floats(tested, tmp_path):
    runner, sample, _, prediction = tested
    written = []
    for dtype in (torch.int64, torch.float32):
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction)[None].to(dtype))
        SaveComparison(str(tmp_path / str(dtype))).after_test_iter(runner, 0, outputs=[sample])
        written.append(read_image(tmp_path / str(dtype) / "city_000001.png"))
    assert (written[0] == written[1]).all()


def test_a_frame_without_label_gives_a_narrower_picture(tested, tmp_path):
    runner, sample, _, _ = tested
    hook = SaveComparison(str(tmp_path / "shown"))
    hook.after_test_iter(runner, 0, outputs=[sample])
    with_truth = read_image(tmp_path / "shown" / "city_000001.png").shape
    del sample.gt_sem_seg
    hook.after_test_iter(runner, 0, outputs=[sample])
    assert read_image(tmp_path / "shown" / "city_000001.png").shape[1] < with_truth[1]


def test_a_file_in_the_way_is_named_before_anything_runs(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(UserError, match="taken"):
        SaveComparison(str(tmp_path / "taken"))


def test_the_old_place_of_its_name_still_has_it():
    assert visualization.SaveComparison is SaveComparison
    with pytest.raises(AttributeError, match="no attribute 'SaveComparisons'"):
        visualization.SaveComparisons  # noqa: B018


def test_two_images_of_one_name_are_told_apart_or_refused_before_the_test(tested, tmp_path):
    class Part:
        metainfo = META

        def __init__(self, folder, *names):
            self.data_prefix = dict(img_path=str(tmp_path / folder))
            self.paths = [str(tmp_path / folder / name) for name in names]
            self.pipeline = tested[0].test_loop.dataloader.dataset.pipeline

        def __len__(self):
            return len(self.paths)

        def get_data_info(self, index):
            return dict(img_path=self.paths[index])

    def runner(*parts):
        loader = SimpleNamespace(dataset=SimpleNamespace(datasets=parts, metainfo=META))
        return SimpleNamespace(test_loop=SimpleNamespace(dataloader=loader))

    hook = SaveComparison(str(tmp_path / "shown"))
    with pytest.raises(UserError, match=r"a/1\.png and .*a/1\.jpg are both named a/1, so .* rename one"):
        hook.before_test(runner(Part("a", "1.png", "1.jpg"), Part("b", "1.png")))
    both = runner(Part("a", "1.png"), Part("b", "1.png"))
    hook.before_test(both)
    for folder in "ab":
        _, sample, _, _ = tested
        (tmp_path / folder).mkdir()
        path = (tmp_path / "city_000001.png").rename(tmp_path / folder / "1.png")
        (tmp_path / "city_000001.png").write_bytes(path.read_bytes())
        sample.set_metainfo(dict(img_path=str(path)))
        hook.after_test_iter(both, 0, outputs=[sample])
    shown = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "shown").rglob("*.png"))
    assert shown == ["shown/a/1.png", "shown/b/1.png"]
