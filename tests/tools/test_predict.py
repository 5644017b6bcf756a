"""tools/predict.py from its command line."""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from child_process import environment
from danseg import apis
from danseg.apis import batches, predict_files
from danseg.attention.parts.views import ShowsAttention, View
from danseg.engine.config.config_file import load_config
from danseg.visualization import overlay, read_image, read_labels, save_image
from launch import launch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def main(tool):
    return tool("predict").main


@pytest.fixture
def rasterio():
    return pytest.importorskip("rasterio")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config, random weights whose predictions vary over the image, and an image of 48 x 80."""
    folder = tmp_path_factory.mktemp("predict")
    config = folder / "tiny.py"
    config.write_text(f'_base_ = ["{ROOT / "tests" / "engine" / "tiny.py"}"]\n')
    torch.manual_seed(0)
    model = apis.load_model(config, None, "cpu")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / "weights.pth")
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "street.png"), cv2.resize(coarse, (80, 48), interpolation=cv2.INTER_CUBIC))
    return str(config), str(folder / "weights.pth"), str(folder / "street.png")


def test_writes_labels_overlay_and_attention_and_prints_their_paths(main, trained, tmp_path, capsys):
    out = tmp_path / "out"
    main([*trained, "--out", str(out), "--attention", "10,20", "79,47", "--device", "cpu"])
    names = ["street_labels.png", "street_overlay.png", "street_attention_decode_head.pam.png"]
    assert capsys.readouterr().out.split() == [str(out / name) for name in names]
    assert written(out) == sorted(names)

    model = apis.load_model(*trained[:2], "cpu")
    labels = apis.predict(model, trained[2])
    assert len(np.unique(labels)) > 1
    assert (read_labels(out / names[0]) == labels).all()
    palette = load_palette(trained[0])
    assert (read_image(out / names[1]) == overlay(read_image(trained[2]), labels, palette)).all()
    assert read_image(out / names[2]).shape[1] > 2 * 500  # two panels


def written(out):
    """The names of the files below a folder, but for the record of what is finished."""
    paths = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not path.name.startswith("."))


def test_precision_and_compile_reach_the_model(main, trained, tmp_path, monkeypatch):
    prepare, asked = apis.prepare_for_inference, []

    def prepare_and_note(model, **options):
        asked.append(options)
        return prepare(model, **{**options, "compile": False})  # it needs a C++ compiler and a minute

    monkeypatch.setattr(predict_files, "ready_for_inference", prepare_and_note)
    options = ["--out", str(tmp_path), "--device", "cpu", "--attention", "10,20"]
    main([*trained, *options, "--precision", "bfloat16", "--compile"])
    assert asked == [dict(precision="bfloat16", compile=True)]
    narrow = read_labels(tmp_path / "street_labels.png")
    assert (tmp_path / "street_attention_decode_head.pam.png").is_file()
    main([*trained, *options, "--overwrite"])
    assert asked[1:] == [dict(precision="float32", compile=False)]
    assert (read_labels(tmp_path / "street_labels.png") == narrow).mean() > 0.95


def load_palette(config):
    return apis.dataset_meta(load_config(config))["palette"]


def test_positions_are_chosen_when_none_is_named(main, trained, tmp_path):
    main([*trained, "--out", str(tmp_path), "--device", "cpu", "--attention"])
    assert (tmp_path / "street_attention_decode_head.pam.png").is_file()


def test_no_attention_is_drawn_unasked_and_pictures_are_replaced(main, trained, tmp_path):
    (tmp_path / "street_labels.png").write_text("an older picture")
    main([*trained, "--out", str(tmp_path), "--device", "cpu"])
    assert written(tmp_path) == ["street_labels.png", "street_overlay.png"]
    assert read_labels(tmp_path / "street_labels.png").shape == (48, 80)


def test_tiles_write_a_geotiff_of_labels_alone(rasterio, main, trained, tmp_path, capsys):
    (tmp_path / "street_labels.tif").write_text("an older one")
    main([*trained, "--out", str(tmp_path), "--device", "cpu", "--tiles"])
    assert capsys.readouterr().out.split() == [str(tmp_path / "street_labels.tif")]
    assert written(tmp_path) == ["street_labels.tif"]
    with rasterio.open(tmp_path / "street_labels.tif") as file:
        whole = file.read(1)
    model = apis.load_model(*trained[:2], "cpu")
    with rasterio.open(apis.predict_large(model, trained[2], tmp_path / "expected.tif")) as file:
        assert (whole != file.read(1)).mean() < 1e-3 and len(np.unique(whole)) > 1
    main([*trained, "--out", str(tmp_path), "--device", "cpu", "--tiles", "32", "--overwrite"])
    with rasterio.open(tmp_path / "street_labels.tif") as file:
        assert file.shape == whole.shape and (file.read(1) != whole).any()


@pytest.mark.parametrize("how", [4, 6])
def test_a_turned_picture_is_upright_with_and_without_tiles(rasterio, main, trained, tmp_path, how):
    exif = Image.Exif()
    exif[0x0112] = how
    with Image.open(trained[2]) as street:
        street.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "turned.jpg")
    save_image(upright, tmp_path / "upright.png")
    pictures = [str(tmp_path / name) for name in ("turned.jpg", "upright.png")]
    arguments = [*trained[:2], *pictures, "--device", "cpu"]
    main([*arguments, "--attention", "10,20", "--out", str(tmp_path)])
    main([*arguments, "--tiles", "--out", str(tmp_path / "tiles")])
    for end in ("labels.png", "overlay.png", "attention_decode_head.pam.png", "tiles/labels.tif"):
        folder, name = os.path.split(end)
        with (
            rasterio.open(tmp_path / folder / f"turned_{name}") as turned,
            rasterio.open(tmp_path / folder / f"upright_{name}") as one,
        ):
            assert (turned.read() == one.read()).all(), end
    assert read_labels(tmp_path / "turned_labels.png").shape == ((48, 80) if how == 4 else (80, 48))


def failing(main, capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments), "--device", "cpu"])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said
    return said


def test_bad_input_is_named(rasterio, main, trained, tmp_path, capsys):
    config, checkpoint, image = trained
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    out = tmp_path / "out"
    assert "broken.png cannot be read" in failing(main, capsys, config, checkpoint, broken, "--out", out)
    deep, cut = tmp_path / "deep.png", tmp_path / "cut.png"
    cv2.imwrite(str(deep), np.full((20, 30, 3), 4000, np.uint16))
    cut.write_bytes(Path(image).read_bytes()[:-30])
    for tiles in ((), ("--tiles",), ("--tiles", "32")):
        said = failing(main, capsys, config, checkpoint, deep, "--out", out, *tiles)
        assert "deep.png" in said and "cut to 8 bits" in said and "-scale 0 4095 0 255" in said
        assert "cut.png cannot be read" in failing(
            main, capsys, config, checkpoint, cut, "--out", out, *tiles
        )
        assert not written(out)
    assert "nowhere.png" in failing(main, capsys, config, checkpoint, tmp_path / "nowhere.png", "--out", out)
    assert "nothing.pth" in failing(main, capsys, config, tmp_path / "nothing.pth", image, "--out", out)
    assert "0 to 79" in failing(main, capsys, config, checkpoint, image, "--out", out, "--attention", "80,0")
    assert "'7;8'" in failing(main, capsys, config, checkpoint, image, "--out", out, "--attention", "7;8")
    (tmp_path / "other").mkdir()
    other = shutil.copy(image, tmp_path / "other")
    said = failing(main, capsys, config, checkpoint, image, other, "--out", out)
    assert f"{image} and {other} would have the same outputs" in said
    assert "broken.png" in failing(main, capsys, config, checkpoint, image, "--out", broken)
    tiles = ("--tiles", "--attention")
    assert "leave out one" in failing(main, capsys, config, checkpoint, image, "--out", out, *tiles)
    assert "got 0" in failing(main, capsys, config, checkpoint, image, "--out", out, "--tiles", "0")
    half = ("--precision", "float16")
    assert "float16 needs a GPU" in failing(main, capsys, config, checkpoint, image, "--out", out, *half)


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        ((), ["an image in tiles (--tiles)", "--precision bfloat16", "--device cpu"]),
        (("--attention",), ["smaller images", "--precision bfloat16"]),
        (("--tiles", "64", "--precision", "bfloat16"), ["smaller tiles (--tiles, now 64)"]),
    ],
)
def test_too_little_memory_is_one_message(main, trained, tmp_path, capsys, monkeypatch, options, ways):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    for place, name in (
        (batches, "predict_labels"),
        (predict_files, "predict"),
        (predict_files, "predict_large"),
    ):
        monkeypatch.setattr(place, name, full)
    said = failing(main, capsys, *trained, "--out", tmp_path, *options)
    assert "needs more memory than the GPU has: 2.00 GiB more" in said and all(way in said for way in ways)
    assert ("--precision" in said) == ("--precision" not in options)


@pytest.mark.parametrize("asked", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(main, trained, tmp_path, capsys, asked):
    with pytest.raises(SystemExit):
        main([*trained, "--out", str(tmp_path / "out"), "--device", asked])
    said = capsys.readouterr().err
    assert said.startswith(f"error: device '{asked}'") and "choose one of cpu" in said
    assert not (tmp_path / "out").exists()


def test_an_unknown_precision_is_refused_with_those_that_exist(main, trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*trained, "--out", str(tmp_path / "out"), "--precision", "int8"])
    assert stop.value.code == 2 and not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert "int8" in said and "bfloat16" in said


def changed(trained, folder, text: str) -> tuple[str, str, str]:
    """Another config on the tiny one, with random weights that fit, and the same image."""
    path = folder / "other.py"
    path.write_text(f"_base_ = [{trained[0]!r}]\n{text}\n")
    config = load_config(path)
    torch.manual_seed(0)
    model = apis.load_model(config, None, "cpu")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / "other.pth")
    return str(path), str(folder / "other.pth"), trained[2]


def replaced(trained, head: str) -> str:
    own = load_config(trained[0]).model.decode_head
    common = {key: own[key] for key in ("in_channels", "in_index", "channels", "num_classes", "norm_cfg")}
    return f"model = dict(decode_head=dict(_delete_=True, {head}, **{dict(common)!r}))"


def test_psanets_attention_is_drawn(main, trained, tmp_path, capsys):
    text = replaced(trained, 'type="PSANetHead", mask_size=(5, 7)')
    other = changed(trained, tmp_path, text)
    main([*other, "--out", str(tmp_path / "out"), "--device", "cpu", "--attention", "10,20"])
    drawn = tmp_path / "out" / "street_attention_decode_head.png"
    assert str(drawn) in capsys.readouterr().out.split() and drawn.is_file()


@MODELS.register_module(force=True)
class Gated(ShowsAttention, torch.nn.Module):
    """A gate for each position, which is the same wherever one looks from."""

    def __init__(self, in_channels):
        super().__init__()
        self.gate = torch.nn.Conv2d(in_channels, 1, 1)

    def forward(self, x):
        return x * self.gate(x).sigmoid()

    def attention_views(self):
        return (View("everywhere", lambda x: lambda: self.gate(x).sigmoid(), values="gate"),)


def test_maps_that_are_the_same_for_all_positions_are_drawn(main, trained, tmp_path, capsys):
    head = 'type="AttentionHead", attention=dict(type="Gated")'
    other = changed(trained, tmp_path, replaced(trained, head))
    main([*other, "--out", str(tmp_path / "out"), "--device", "cpu", "--attention", "10,20", "50,20"])
    drawn = tmp_path / "out" / "street_attention_decode_head.attention.png"
    assert str(drawn) in capsys.readouterr().out.split()
    assert 500 < read_image(drawn).shape[1] < 2 * 500  # one panel, whatever the positions


def test_attention_of_a_network_without_maps_is_an_error_and_writes_nothing(main, trained, tmp_path, capsys):
    other = changed(trained, tmp_path, replaced(trained, 'type="FCNHead", num_convs=1'))
    out = tmp_path / "out"
    said = failing(main, capsys, *other, "--out", out, "--attention", "10,20")
    assert "FCNHead has no attention to show" in said
    assert not written(out)


def test_attention_that_no_picture_has_is_told_once(main, trained, folder, tmp_path, capsys):
    other = changed(trained, tmp_path, replaced(trained, 'type="FCNHead", num_convs=1'))
    said = failing(main, capsys, *other[:2], str(folder), "--out", tmp_path / "out", "--attention")
    assert said.count("FCNHead has no attention to show") == said.count("error: ") == 1
    assert "skipped" not in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "dataset",
    [
        'type="CityscapesDataset", metainfo=dict(classes=["person", "road", "car"])',
        'type="BaseSegDataset", img_suffix=".png", metainfo=dict(classes=["a", "b", "c"])',
    ],
    ids=["a part of the classes", "no palette"],
)
def test_the_overlay_has_the_colours_of_the_built_data_set(main, trained, tmp_path, dataset):
    text = (
        "model = dict(decode_head=dict(num_classes=3), auxiliary_head=dict(num_classes=3))\n"
        f"test_dataloader = dict(dataset=dict({dataset}))\n"
    )
    other = changed(trained, tmp_path, text)
    main([*other, "--out", str(tmp_path / "out"), "--device", "cpu"])
    config = load_config(other[0]).test_dataloader.dataset
    palette = DATASETS.build(dict(config, pipeline=[], lazy_init=True)).metainfo["palette"]
    labels = read_labels(tmp_path / "out" / "street_labels.png")
    assert len(np.unique(labels)) > 1 and len(palette) == 3
    found = read_image(tmp_path / "out" / "street_overlay.png")
    painted = np.asarray(palette)[labels]
    expected = np.rint(0.5 * read_image(trained[2]) + 0.5 * painted)
    assert (found == expected).all()


@pytest.fixture
def folder(trained, tmp_path):
    """Twenty pictures of two sizes in two folders."""
    street = cv2.imread(trained[2])
    for number in range(20):
        path = tmp_path / "in" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.roll(street, 3 * number, axis=1)
        cv2.imwrite(str(path), picture[:40] if number % 3 == 0 else picture)
    return tmp_path / "in"


def predict(main, trained, *arguments):
    main([*trained[:2], *map(str, arguments), "--device", "cpu"])


def contents(out):
    return {name: (out / name).read_bytes() for name in written(out)}


def test_a_folder_keeps_its_paths_and_what_is_finished_is_skipped(main, trained, folder, tmp_path, capsys):
    out = tmp_path / "out"
    predict(main, trained, folder, "--out", out)
    said = capsys.readouterr()
    assert len(said.out.split()) == 40 and "20 of 20 predicted now" in said.err
    stems = [f"{'ab'[number % 2]}/{number:02}" for number in range(20)]
    assert written(out) == sorted(f"{stem}_{end}.png" for stem in stems for end in ("labels", "overlay"))
    before = contents(out)
    model = apis.prepare_for_inference(apis.load_model(*trained[:2], "cpu"))
    for name in (stems[0], stems[7]):
        labels = apis.predict(model, folder / f"{name}.png")
        assert len(np.unique(labels)) > 1
        assert (labels != read_labels(out / f"{name}_labels.png")).mean() < 1e-3

    (out / "a" / "04_labels.png").unlink()
    (out / "b" / "05_labels.png").write_bytes(b"half")
    cv2.imwrite(str(folder / "a" / "06.png"), cv2.imread(str(folder / "b" / "07.png")))
    predict(main, trained, folder, "--out", out)
    said = capsys.readouterr().err
    assert "17 of 20 were finished" in said and "3 of 20 predicted now" in said
    changed = [name for name, content in contents(out).items() if content != before[name]]
    assert changed == ["a/06_labels.png", "a/06_overlay.png"]

    predict(main, trained, folder, "--out", out, "--labels", "palette")
    assert "20 of 20 predicted now" in capsys.readouterr().err
    predict(main, trained, folder, "--out", out, "--labels", "palette", "trainIds", "--overlay")
    assert "20 of 20 were finished" in capsys.readouterr().err


def test_predictions_of_another_model_are_not_taken_for_finished(main, trained, folder, tmp_path, capsys):
    out = tmp_path / "out"
    predict(main, trained, folder, "--out", out)
    before = contents(out)
    weights = torch.load(trained[1])
    next(iter(weights["state_dict"].values()))[0] *= 1.5
    torch.save(weights, tmp_path / "other.pth")
    other = (trained[0], tmp_path / "other.pth")
    capsys.readouterr()
    said = failing(main, capsys, *other, folder, "--out", out)
    assert "predictions of 20 of the 20 that were made with other settings (weights " in said
    assert contents(out) == before
    said = failing(main, capsys, *trained[:2], folder, "--out", out, "--tta")
    assert "tta False, now True" in said
    main([*map(str, other), str(folder), "--out", str(out), "--device", "cpu", "--overwrite"])
    assert "20 of 20 predicted now" in capsys.readouterr().err and contents(out) != before


def test_failures_are_listed_and_the_status_says_so(main, trained, folder, tmp_path, capsys):
    (folder / "broken.png").write_text("no picture")
    (folder / "notes.md").touch()
    (folder / "clip.mp4").write_text("no video")
    for times in range(2):
        said = failing_at_last(main, capsys, *trained[:2], folder, "nowhere.png", "--out", tmp_path / "out")
        assert "left out, as they are no images or videos by their suffixes: .md (1)" in said
        assert "error: 3 of 23 could not be predicted:\n" in said
        listed = said.partition("could not be predicted:\n")[2].splitlines()
        for name in ("broken.png", "clip.mp4", "nowhere.png"):
            assert [line for line in listed if name in line]
        assert ("20 of 23 were finished" in said) == (times == 1)


def failing_at_last(main, capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments), "--device", "cpu"])
    assert stop.value.code == 1
    return capsys.readouterr().err


def test_augmentation_and_options_of_the_config_reach_the_network(main, trained, tmp_path, capsys):
    labels = {}
    for name, options in dict(
        plain=(),
        tta=("--tta",),
        whole=("--cfg-options", "model.test_cfg.mode=whole"),
    ).items():
        out, kinds = tmp_path / name, ("--labels", "--probabilities")
        main([*trained, "--out", str(out), "--device", "cpu", *kinds, *options])
        assert written(out) == ["street_labels.png", "street_probabilities.npy"]
        labels[name] = read_labels(out / "street_labels.png")
        assert (np.load(out / "street_probabilities.npy").argmax(0) == labels[name]).mean() > 0.99
    for name in ("tta", "whole"):
        assert 0.2 < (labels[name] == labels["plain"]).mean() < 1
    model = apis.load_model(*trained[:2], "cpu")
    model.test_cfg.mode = "whole"
    assert (labels["whole"] == apis.predict(model, trained[2])).mean() > 0.999


def test_tiles_of_many_files_go_on_where_they_were(rasterio, main, trained, folder, tmp_path, capsys):
    out = tmp_path / "out"
    (folder / "broken.png").write_text("no picture")
    said = failing_at_last(main, capsys, *trained[:2], folder, "--out", out, "--tiles", "32")
    assert "20 of 21 predicted now" in said and len(written(out)) == 20
    (out / "a" / "04_labels.tif").unlink()
    (folder / "broken.png").unlink()
    predict(main, trained, folder, "--out", out, "--tiles", "32")
    assert "19 of 20 were finished" in capsys.readouterr().err and len(written(out)) == 20


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tiles", "--overlay"), "leave out --overlay or --tiles"),
        (("--tiles", "--labels", "palette"), "leave out --labels or --tiles"),
        (("--tiles", "--tta"), "--tiles knows one"),
        (("--attention", "--tta"), "--attention knows one"),
        (("--attention", "--probabilities"), "--attention writes no probabilities"),
        (("--launcher", "pytorch"), "start the tool with torchrun"),
    ],
)
def test_options_that_do_not_fit_are_one_message(main, trained, tmp_path, capsys, monkeypatch, options, says):
    monkeypatch.delenv("RANK", raising=False)
    assert says in failing(main, capsys, *trained, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--batch-size", "--workers"])
@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_counts_are_whole_numbers(main, trained, tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as stop:
        main([*trained, "--out", str(tmp_path), f"{option}={value}"])
    assert stop.value.code == 2
    assert f"expected a whole number from 1, got '{value}'" in capsys.readouterr().err


def test_the_commands_of_the_page_are_understood(tool):
    page = (ROOT / "docs" / "prediction.md").read_text(encoding="utf-8")
    commands = re.findall(
        r"^(?:python|torchrun.*|srun.*) (?:python )?tools/predict.py (.*)$", page, re.MULTILINE
    )
    assert len(commands) >= 5
    for command in commands:
        assert tool("predict").parse_args(shlex.split(command)).images
    options = re.findall(r"^  (--[a-z-]+)", capture_help(tool), re.MULTILINE)
    unsaid = {"--compile", "--device", "--cfg-options"}  # as everywhere
    assert not [one for one in options if one not in unsaid and f"{one}" not in page]


def capture_help(tool):
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:
        tool("predict").parse_args(["--help"])
    return said.getvalue()


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import predict
from danseg.apis.finished import Record
note, noted = Record.note, []
def kill_later(self, *arguments):
    note(self, *arguments)
    noted.append(1)
    if len(noted) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
Record.note = kill_later
predict.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_and_two_processes_leave_the_files_of_one_run(main, trained, folder, tmp_path, capsys):
    for name in ("whole", "killed"):
        arguments = [*trained[:2], str(folder), "--out", str(tmp_path / name), "--batch-size", "4"]
        if name == "killed":
            command = [sys.executable, "-c", KILLED, str(ROOT / "tools"), *arguments, "--device", "cpu"]
            done = subprocess.run(command, env=environment(CUDA_VISIBLE_DEVICES=""), capture_output=True)
            assert done.returncode == -signal.SIGKILL and 14 <= len(written(tmp_path / name)) < 40
        capsys.readouterr()
        main([*arguments, "--device", "cpu"])
    assert "7 of 20 were finished" in capsys.readouterr().err
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    # What the kill cut short lay there under a hidden name; the second run knew whose it was.
    assert not list((tmp_path / "killed").rglob("*.part"))

    (folder / "broken.png").write_text("no picture")
    two = tmp_path / "two"
    arguments = [*trained[:2], folder, "--out", two, "--device", "cpu", "--batch-size", "4"]
    done = launch(2, "predict", *arguments)
    assert done.returncode == 1 and done.stderr.count("could not be predicted:") == 1, done.stderr
    assert "20 of 21 predicted now" in done.stderr and "broken.png cannot be read" in done.stderr
    assert contents(two) == contents(tmp_path / "whole")
    shares = sorted(path.name for path in two.glob(".predicted-*"))
    assert shares == [".predicted-0.jsonl", ".predicted-1.jsonl"]
