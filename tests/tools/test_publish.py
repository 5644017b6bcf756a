"""tools/publish.py: its arguments, and what it says of files that it cannot publish."""

import json
from pathlib import Path

import pytest
import torch

from danseg.apis import load_model

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture(scope="module")
def main(tool):
    return tool("publish").main


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Weights without a config."""
    path = tmp_path_factory.mktemp("bare") / "bare.pth"
    torch.save(load_model(TINY, None, "cpu").state_dict(), path)
    return path


def test_weights_and_a_config_become_one_file(main, bare, tmp_path, capsys):
    main([str(bare), "--config", str(TINY), "--out", str(tmp_path / "out" / "tiny.pth")])
    weights, notes, card = map(Path, capsys.readouterr().out.split())
    assert [path.suffix for path in (weights, notes, card)] == [".pth", ".json", ".md"]
    assert {*(tmp_path / "out").iterdir()} == {weights, notes, card}
    picture = torch.rand(1, 3, 32, 32)
    assert torch.equal(load_model(weights, device="cpu")(picture), load_model(TINY, bare, "cpu")(picture))
    told = json.loads(notes.read_text())["published"]
    assert told["network"] == "tiny" and told["scores"] is None
    assert told["training"] == dict(
        iterations=None, epochs=None, seed=None, averaged=False, converted_from=None
    )
    assert told["data"] == dict(sets=["cityscapes"], images=None, names=None)
    assert "Not measured." in card.read_text()


def test_scores_of_a_test_are_taken_from_its_file(main, bare, tmp_path, capsys):
    classes = {"road": {"IoU": 50.0, "Acc": None, "label_pixels": 3, "predicted_pixels": 4}}
    kept = dict(mIoU=50.0, tta=True, views=6, classes=classes)
    path = tmp_path / "metrics_1.json"
    path.write_text(json.dumps(dict(config="/a/b.py", checkpoint=f"/old/{bare.name}", **kept)))
    main([str(bare), "--config", str(TINY), "--out", str(tmp_path / "a.safetensors"), "--metrics", str(path)])
    _, notes, card = map(Path, capsys.readouterr().out.split())
    assert json.loads(notes.read_text())["published"]["scores"] == dict(measured="test", **kept)
    assert "| mIoU | 50.00 |" in card.read_text() and "| road | 50.00 | – |" in card.read_text()
    assert "/old" not in notes.read_text() + card.read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "has no checkpoint and mIoU"),
        ('{"mIoU": 3}', "has no checkpoint and mIoU"),
        ('{"mIoU": 3, "checkpoint": "/a/other.pth"}', "has the scores of other.pth, not of bare.pth"),
    ],
)
def test_scores_that_are_none_or_of_another_are_refused(content, said, main, bare, tmp_path, capsys):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as ended:
        main([str(bare), "--config", str(TINY), "--out", str(tmp_path / "a.pth"), "--metrics", str(path)])
    assert ended.value.code == 1
    assert said in capsys.readouterr().err
    assert not [*tmp_path.glob("a*")]


def test_what_cannot_be_published_is_named_with_the_fix(main, bare, tmp_path, capsys):
    cut = tmp_path / "cut.pth"
    cut.write_bytes(bare.read_bytes()[:-500])
    other = tmp_path / "other.py"
    other.write_text(f'_base_ = ["{TINY}"]\nmodel = dict(decode_head=dict(pam_channels=8))\n')
    for arguments, said in (
        ([str(bare)], "carries no config: name the config before the checkpoint"),
        ([str(bare), "--config", str(other)], "does not fit this config's model"),
        ([str(cut), "--config", str(TINY)], "cut off or damaged"),
        ([str(tmp_path / "none.pth")], "does not exist"),
        ([str(bare), "--config", "danet_r18_nothing"], "does not exist"),
        ([str(bare), "--config", str(TINY), "--data", str(tmp_path)], "--data is for configs on a folder"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--out", str(tmp_path / "a.pth")])
        assert ended.value.code == 1
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pth", "other.py"]
