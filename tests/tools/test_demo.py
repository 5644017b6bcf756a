"""tools/demo.py on a handful of tiny frames: what it does the first time, and what it skips the second."""

import json
import re
import shutil

import pytest

from danseg.visualization import read_image

SCALES = (("train", 0), ("val", 1), ("test", 1))  # the size to which the pipelines resize


@pytest.fixture(scope="module")
def demo(tool):
    return tool("demo")


def options(data_root, iterations=2):
    return [
        "--cfg-options",
        f"data_root={data_root}",
        "crop_size=(32,64)",
        f"train_cfg.max_iters={iterations}",
        f"train_cfg.val_interval={iterations}",
        "train_dataloader.batch_size=2",
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        "val_dataloader.num_workers=0",
        "val_dataloader.persistent_workers=False",
        "test_dataloader.num_workers=0",
        "test_dataloader.persistent_workers=False",
        *(f"{split}_dataloader.dataset.pipeline.{step}.scale=(128,64)" for split, step in SCALES),
    ]


@pytest.mark.slow
def test_from_nothing_to_pictures_and_again(demo, rendered_root, tmp_path, monkeypatch, capfd):
    work = tmp_path / "work"
    demo.main(["--work-dir", str(work), *options(rendered_root)])
    said = capfd.readouterr().out
    assert re.search(r"mIoU on 5 held-out frames: 0\.\d{4}", said)
    headings = re.findall(r"=== (\d/\d) ", said)
    assert headings == ["1/4", "2/4", "3/4", "4/4"]
    pictures = sorted((work / "pictures").glob("*.png"))
    assert len(pictures) == 4 and all(str(path) in said for path in pictures)
    assert all(read_image(path).shape[1] > 3 * 500 for path in pictures)
    report = json.loads(max(work.glob("metrics_*.json")).read_text())
    assert f"{report['mIoU'] / 100:.4f}" in said

    # The second time everything is there: training again would fail.
    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    checkpoint = (work / "iter_2.pth").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("danseg.engine.train.train", refuse)
        demo.main(["--work-dir", str(work), *options(rendered_root)])
        assert "already trained" in capfd.readouterr().out
        # Other settings, a lost checkpoint and --retrain are reasons to train.
        for arguments in ([*options(rendered_root, 3)], ["--retrain", *options(rendered_root)]):
            with pytest.raises(AssertionError, match="trained again"):
                demo.main(["--work-dir", str(work), *arguments])
    assert (work / "iter_2.pth").read_bytes() == checkpoint


def test_an_interrupted_training_continues_and_another_one_starts_anew(
    demo, rendered_root, tmp_path, monkeypatch
):
    asked, begun = [], iter([True, False, False, True, False])

    def interrupt(config, *, resume=None, start_over=False):
        asked.append("start over" if start_over else resume)
        if next(begun):
            (tmp_path / "iter_1.pth").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("danseg.engine.train.train", interrupt)
    # Interrupted before the first checkpoint, it starts again: what lies there is of other settings.
    for iterations in (2, 2, 3, 3, 3):
        with pytest.raises(SystemExit):
            demo.main(["--work-dir", str(tmp_path), *options(rendered_root, iterations)])
    assert asked == ["start over", "auto", "start over", "start over", "auto"]


def test_a_set_that_was_not_rendered_is_left_alone(demo, rendered_root, tmp_path, capsys):
    root = tmp_path / "cityscapes"
    shutil.copytree(rendered_root, root)
    (root / "rendered.json").unlink()
    with pytest.raises(SystemExit) as stop:
        demo.main(["--work-dir", str(tmp_path / "work"), *options(root)])
    assert stop.value.code == 1 and "was not rendered by danseg" in capsys.readouterr().err
