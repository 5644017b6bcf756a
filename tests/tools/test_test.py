"""tools/test.py: predictions, pictures, test-time augmentation, and checkpoints that do not fit."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from danseg.engine.config.config_file import load_config

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "engine" / "tiny.py"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Operations on tiny images cost less than handing them to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def main(tool):
    return tool("test").main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights whose predictions vary over the image."""
    from mmengine.model import revert_sync_batchnorm
    from mmseg.registry import MODELS

    torch.manual_seed(0)
    init_default_scope("mmseg")
    model = revert_sync_batchnorm(MODELS.build(load_config(TINY).model))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {}}, path)
    return path


@pytest.fixture
def run(main, tmp_path, rendered_root, checkpoint):
    number = 0

    def run(*arguments, path=checkpoint, data_root=rendered_root, options=(), text=""):
        nonlocal number
        number += 1
        config = tmp_path / f"{tmp_path.name}_{number}.py"
        config.write_text(f'_base_ = ["{TINY}"]\n{text}')
        work = tmp_path / f"work_{number}"
        data = ["--cfg-options", f"data_root={data_root}", *options]
        main([str(config), str(path), "--work-dir", str(work), *map(str, arguments), *data])
        report = list(work.glob("metrics_*.json"))
        return json.loads(report[0].read_text()) if report else None

    return run


def test_scores_predictions_and_pictures(run, tmp_path, capfd):
    out, shown = tmp_path / "out", tmp_path / "shown"
    report = run("--out", out, "--show-dir", shown)
    said = "".join(capfd.readouterr())
    assert "| road" in said and "mIoU" in said and "mAcc" in said and "aAcc" in said
    assert {"mIoU", "mAcc", "aAcc", "classes"} <= report.keys()
    assert len(list(out.glob("*.png"))) == len(list(shown.glob("*.png"))) == 5
    with Image.open(next(out.glob("*.png"))) as image:
        assert image.size == (128, 64) and image.mode == "L"
        assert min(image.getdata()) >= 7  # labelIds of classes begin at 7


def test_scores_equal_the_official_evaluators_on_the_written_predictions(
    run, official_scores, rendered_root, tmp_path
):
    report = run("--out", tmp_path / "out")
    expected = official_scores(tmp_path / "out", Path(rendered_root) / "gtFine" / "val")
    for name, scores in report["classes"].items():
        iou = float("nan") if scores["IoU"] is None else scores["IoU"] / 100
        assert iou == pytest.approx(expected["classScores"][name], abs=1e-6, nan_ok=True), name
    assert report["mIoU"] / 100 == pytest.approx(expected["averageScoreClasses"], abs=1e-6)
    assert 0 < report["mIoU"]


@pytest.mark.slow
def test_evaluation_makes_no_logits_at_the_images_resolution(run, monkeypatch):
    from mmseg.models.segmentors.base import BaseSegmentor

    resized = []
    original = BaseSegmentor.postprocess_result
    monkeypatch.setattr(
        BaseSegmentor,
        "postprocess_result",
        lambda self, logits, *rest: resized.append(logits.shape) or original(self, logits, *rest),
    )
    plain = run()
    assert not resized
    run("--tta")  # it averages logits, so it needs them
    assert len(resized) >= 5 and plain["aAcc"] > 0


@pytest.mark.slow
def test_tta_averages_over_scales_and_flips(run):
    plain, augmented = run(), run("--tta")
    assert augmented["tta"] and not plain["tta"]
    assert augmented["aAcc"] != plain["aAcc"]
    # One scale without flips is the same as no augmentation.
    load, pack = [dict(type="LoadAnnotations")], [dict(type="PackSegInputs")]
    once = [dict(type="LoadImageFromFile"), dict(type="TestTimeAug", transforms=[load, pack])]
    alone = run("--tta", text=f"tta_pipeline = {once}\n")
    assert alone["aAcc"] == plain["aAcc"]


def test_format_only_needs_no_labels(run, tmp_path, rendered_root):
    bare = tmp_path / "bare"
    shutil.copytree(Path(rendered_root) / "leftImg8bit", bare / "leftImg8bit")
    out = tmp_path / "out"
    for extra in ((), ("--tta",)):
        assert run("--format-only", "--out", out, *extra, data_root=bare) is None
        assert len(list(out.glob("*.png"))) == 5
        shutil.rmtree(out)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (("--format-only",), {}, "--out"),
        ((), {"options": ["model.decode_head.channels=8"]}, "decode_head.* instead of"),
        ((), {"path": "nowhere.pth"}, "nowhere.pth does not exist"),
        (("--tta",), {"options": ["tta_pipeline=None"]}, "has no tta_pipeline"),
    ],
)
def test_bad_input_gets_one_message(run, capsys, arguments, keywords, message):
    with pytest.raises(SystemExit) as ended:
        run(*arguments, **keywords)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert re.search(message, said)
