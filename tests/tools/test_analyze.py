"""tools/analyze.py: from a command to a page, and each mistake to one message."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from danseg.engine.config.config_file import load_config

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture
def main(tool):
    return tool("analyze").main


@pytest.fixture
def run_dir(tmp_path):
    log = tmp_path / "run" / "20260101_000000" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    log.write_text('{"loss": 1.0, "lr": 0.1, "step": 1}\n')
    return tmp_path / "run"


def test_a_checkpoint_and_trainings_on_one_page(main, run_dir, tmp_path, rendered_root, capsys):
    init_default_scope("mmseg")
    torch.manual_seed(0)
    weights, config = tmp_path / "weights.pth", tmp_path / f"{tmp_path.name}.py"
    torch.save({"state_dict": MODELS.build(load_config(TINY).model).state_dict(), "meta": {}}, weights)
    config.write_text(f"_base_ = [{str(TINY)!r}]\n")
    out = tmp_path / "out"
    data = ["--work-dir", str(tmp_path / "work"), "--cfg-options", f"data_root={rendered_root}"]
    arguments = ["--runs", str(run_dir), "--out", str(out), "--worst", "1", "--bins", "5", *data]
    main([str(config), str(weights), *arguments])
    assert f"report: {out / 'report.md'}" in capsys.readouterr().out
    index = json.loads((out / "analysis.json").read_text())
    assert index["images"] == 5 and len(index["worst"]) == 1 and index["runs"] == [str(run_dir)]
    page = (out / "report.md").read_text()
    main([str(config), str(weights), "--tta", *arguments[2:]])
    assert "averaged over 4 views: x0.75, x0.75 flipped" in (out / "report.md").read_text()
    assert f"**mIoU {index['mIoU']:.2f}**" in page and "over 5 bins" in page and "## Trainings" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "required: --out"),
        (("--out", "x"), "name what to analyse"),
        (("config.py", "--out", "x"), "name the checkpoint, too"),
        (
            ("c.py", "w.pth", "--out", "x", "--bins", "0"),
            "--bins: expected a whole number from 1 to 1000, got '0'",
        ),
        (("c.py", "w.pth", "--out", "x", "--worst", "-1"), "--worst"),
        (
            ("c.py", "w.pth", "--out", "x", "--worst", "many"),
            "--worst: expected a whole number from 0 to 999, got 'many'",
        ),
        (
            ("c.py", "w.pth", "--out", "x", "--boundary", "2"),
            "--boundary: expected a number from 1e-06 to 1, got '2'",
        ),
        (("c.py", "w.pth", "--out", "x", "--boundary", "nan"), "--boundary"),
    ],
)
def test_wrong_arguments(arguments, words, main, capsys):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.py", "w.pth", "--out", "out"), "nowhere.py does not exist"),
        ((str(TINY), "nowhere.pth", "--out", "out"), "nowhere.pth"),
        ((str(TINY), "w.pth", "--data", "mine", "--out", "out"), "--data is for configs on a folder recipe"),
        ((str(TINY), "w.pth", "--data", "mine", "--out", "out"), "--data is for configs on a folder recipe"),
        (("--runs", "nowhere", "--out", "out"), "nowhere is no folder"),
        (("--runs", "{tmp}", "--out", "out"), "holds no log"),
        (("--runs", "{run}", "--out", ""), "has no name"),
        (("--runs", "{run}", "--out", "{run}/../file"), "File exists"),
        (("--runs", "{run}", "{run}", "--out", "out"), "twice"),
    ],
)
def test_mistakes(arguments, words, main, run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main([one.format(tmp=tmp_path, run=run_dir) for one in arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.startswith("error: ") and words in said, said
    assert "Traceback" not in said and not list(tmp_path.glob("out/*"))
