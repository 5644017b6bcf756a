"""A published network: the same logits from one file, and nothing of the machine or the training."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from authors_networks import Plain, danet
from danseg.apis import Segmenter, load_model
from danseg.convert.published import publish
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.config.config_file import load_config
from danseg.errors import UserError
from danseg.io import files as io_files

SUFFIXES = (".safetensors", ".pth")
PICTURE = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def last(trained):
    return trained / "iter_4.pth"


def published_from(checkpoint, out):
    model = load_model(checkpoint, device="cpu")
    return publish(model, load_config(checkpoint), checkpoint, out)


@pytest.fixture
def published(last, tmp_path):
    """``published(suffix)``: the files of the training's last checkpoint."""
    return lambda suffix=".safetensors": published_from(last, tmp_path / f"danet{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_alone_gives_the_same_logits_to_the_bit(suffix, last, published, tmp_path):
    files = published(suffix)
    config = last.parent / "danet_tiny.py"
    alone = tmp_path / "elsewhere" / files.weights.name
    alone.parent.mkdir()
    shutil.copy(files.weights, alone)  # without what lies beside it
    wanted, got = load_model(config, last, "cpu"), load_model(alone, device="cpu")
    assert torch.equal(got(PICTURE), wanted(PICTURE))
    assert got.dataset_meta["classes"] == wanted.dataset_meta["classes"]
    assert got.dataset_meta["palette"] == wanted.dataset_meta["palette"]
    assert got.cfg.model.test_cfg.mode == "slide"
    again = published_from(alone, tmp_path / f"again{suffix}")
    assert torch.equal(load_model(again.weights, device="cpu")(PICTURE), wanted(PICTURE))
    assert Segmenter(alone, device="cpu").classes == wanted.dataset_meta["classes"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_converted_network_gives_the_same_logits_to_the_bit(suffix, brought, image, tmp_path):
    net = Plain()
    danet(net, image)
    converted = brought("danet", {"state_dict": net.weights})
    wanted = load_model(converted.checkpoint, device="cpu")
    files = published_from(converted.checkpoint, tmp_path / f"published{suffix}")
    assert torch.equal(load_model(files.weights, device="cpu")(PICTURE), wanted(PICTURE))
    told = json.loads(files.notes.read_text())["published"]["training"]["converted_from"]
    assert (
        told["layout"] == "danet"
        and told["file"] == "theirs.pth"
        and told["sha256"] in files.card.read_text()
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_averaged_weights_are_published_and_no_state_of_the_training(suffix, last, published):
    raw = torch.load(last, weights_only=False)
    current = {name.removeprefix("module."): value for name, value in raw["ema_state_dict"].items()}
    content = read_checkpoint(published(suffix).weights)
    assert content.keys() == {"state_dict", "meta"}
    assert content["meta"].keys() == {"cfg", "dataset_meta", "published"}
    name = "decode_head.conv_seg.weight"
    assert torch.equal(content["state_dict"][name], raw["state_dict"][name])
    assert not torch.equal(content["state_dict"][name], current[name])
    assert content["state_dict"].keys() == raw["state_dict"].keys()
    told = content["meta"]["published"]
    assert told["training"] == dict(iterations=4, epochs=0, seed=3, averaged=True, converted_from=None)
    assert told["network"] == "danet_tiny"


def test_a_file_is_a_tenth_of_the_checkpoint_and_its_name_begins_its_hash(last, published):
    for suffix in SUFFIXES:
        files = published(suffix)
        digest = hashlib.sha256(files.weights.read_bytes()).hexdigest()
        assert files.weights.name == f"danet-{digest[:8]}{suffix}"
        assert files.notes.name == f"danet-{digest[:8]}.json" and files.card.name == f"danet-{digest[:8]}.md"
        assert files.weights.stat().st_size < 0.5 * last.stat().st_size
        meta = json.loads(files.notes.read_text())
        assert meta == json.loads(json.dumps(read_checkpoint(files.weights)["meta"]))


def test_nothing_tells_of_the_machine(trained, last, published, rendered_root, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    for suffix in SUFFIXES:
        for path in published(suffix):
            data = path.read_bytes()
            places = (str(trained), rendered_root, "secret", "/ann", "pytest-of-")
            for part in (*places, "work_dir", "load_from", "experiment_name"):
                assert part.encode() not in data, (path.suffix, part)
    own = load_model(last, device="cpu").cfg
    assert own.train_dataloader.dataset.data_root == rendered_root, "the training's own file keeps its data"


def test_data_and_scores_are_told(trained, published, rendered_root):
    told = json.loads(published().notes.read_text())["published"]
    assert told["data"]["sets"] == ["cityscapes"] and told["data"]["images"] == 6
    assert len(told["data"]["names"]) == 16
    record = json.loads((trained / "validations.json").read_text())
    scores = {key: value for key, value in record[-1].items() if key != "iteration"}
    assert record[-1]["iteration"] == 4 and scores
    assert told["scores"] == {"measured": "validation", **scores}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_changed_file_is_refused(suffix, published, tmp_path):
    files = published(suffix)
    content = read_checkpoint(files.weights)
    name = "decode_head.conv_seg.bias"

    def save(state, meta):
        path = tmp_path / f"changed{suffix}"
        if suffix == ".pth":
            torch.save(dict(state_dict=state, meta=meta), path)
        else:
            safetensors.torch.save_file(state, path, {"danseg": json.dumps(meta)})
        return path

    state, meta = content["state_dict"], content["meta"]
    load_model(save(state, meta), device="cpu")
    changed_bias = {**state, name: state[name] + 1e-6}
    fewer = {key: value for key, value in state.items() if key != name}
    other = {**meta, "dataset_meta": {**meta["dataset_meta"], "classes": ["x"] * 19}}
    config = {**meta, "cfg": meta["cfg"] + "a = 1\n"}
    no_hash = {**meta, "published": {}}
    odd = {**meta, "published": {"sha256": 3}}
    for found in (
        (changed_bias, meta),
        (fewer, meta),
        *((state, one) for one in (other, config, no_hash, odd)),
    ):
        with pytest.raises(UserError, match=r"changed\.\w+ was changed after it was published"):
            load_model(save(*found), device="cpu")


def test_refusals_leave_nothing(last, published, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"danet\.onnx: a network is published as \.pth or \.safetensors"):
        published_from(last, out / "danet.onnx")
    with pytest.raises(UserError, match="published as"):
        published_from(last, out / "danet")
    assert not out.exists()
    files = published_from(last, out / "danet.pth")
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(UserError, match=r"exists already; delete it, or name another file with --out"):
        published_from(last, out / "danet.pth")
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    for path in files[:2]:
        path.unlink()
    with pytest.raises(UserError, match=r"\.md exists already"):
        published_from(last, out / "danet.pth")
    assert [*out.iterdir()] == [files.card]
    files.card.unlink()

    monkeypatch.setattr("danseg.convert.published.model_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        published_from(last, out / "danet.pth")
    assert not [*out.iterdir()]
    monkeypatch.undo()

    replace = io_files.os.replace
    for room in range(3):
        calls = iter(range(3))

        def full(part, target, calls=calls, room=room):
            if next(calls) == room:
                raise OSError(28, "No space left on device")
            replace(part, target)

        monkeypatch.setattr(io_files.os, "replace", full)
        with pytest.raises(UserError, match="No space left"):
            published_from(last, out / "danet.pth")
        assert not [*out.iterdir()], room


def test_where_the_training_started_from_is_kept_by_name(last, tmp_path):
    config = load_config(last)
    config.model.pretrained = "/home/ann/resnet18_v1c.pth"
    model = load_model(config, last, "cpu")
    files = publish(model, config, last, tmp_path / "danet.pth")
    assert load_config(files.weights).model.pretrained == "resnet18_v1c.pth"
    assert "| started from | resnet18_v1c.pth |" in files.card.read_text()
    assert torch.equal(load_model(files.weights, device="cpu")(PICTURE), model(PICTURE))


def test_a_folder_that_is_none_is_named(last, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder .*--out"):
        published_from(last, tmp_path / "file" / "danet.pth")


def test_a_test_of_a_trainings_own_checkpoint_leaves_it_as_it_is(trained, last, tool, tmp_path, monkeypatch):
    """A run writes its config into its work dir, by default one of the checkpoint's name."""
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    tool("test").main([str(last)])
    [report] = (tmp_path / "work_dirs" / "iter_4").glob("metrics_*.json")
    copy = Path(shutil.copy(last, tmp_path))
    tool("test").main([str(copy), "--work-dir", str(tmp_path)])
    assert copy.read_bytes() == last.read_bytes()
    assert load_model(tmp_path / "iter_4.py", last, "cpu").cfg.model.type == "LeanEncoderDecoder"
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_tools_take_the_file_alone(last, published, tool, tmp_path, rendered_root):
    weights = published().weights
    reports = {}
    for name, arguments in {"both": [last.parent / "danet_tiny.py", last], "alone": [weights]}.items():
        data = f"test_dataloader.dataset.data_root={rendered_root}"
        work = tmp_path / name
        tool("test").main([*map(str, arguments), "--work-dir", str(work), "--cfg-options", data])
        [report] = work.glob("metrics_*.json")
        reports[name] = json.loads(report.read_text())
    assert reports["alone"]["checkpoint"] == str(weights)
    assert reports["alone"]["classes"] == reports["both"]["classes"]
    picture = next(Path(rendered_root).glob("leftImg8bit/val/*/*.png"))
    tool("predict").main([str(weights), str(picture), "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert len([*(tmp_path / "out").glob("*_labels.png")]) == 1
