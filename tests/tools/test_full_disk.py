"""Every tool on a full disk: one message that names the file, status 1, and no half file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image

from danseg import apis
from full_disk import full_disk

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture(scope="module")
def given(tmp_path_factory, rendered_root):
    """What the tools read: a config, weights, an image, folders of labels and sets to prepare."""
    folder = tmp_path_factory.mktemp("given")
    for number in range(len(TOOLS)):  # mmengine distinguishes runs of one process by their config's name
        (folder / f"tiny_{number}.py").write_text(f"_base_ = [{str(TINY)!r}]\n")
    model = apis.load_model(TINY, None, "cpu")
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / "weights.pth")
    Image.new("RGB", (80, 48)).save(folder / "street.png")
    picture = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2))
    for name in ("train", "trainannot", "val", "valannot"):
        (folder / "camvid" / name).mkdir(parents=True)
        picture.convert("L" if name.endswith("annot") else "RGB").save(folder / "camvid" / name / "x.png")
    for split in ("training", "validation"):
        for kind, suffix in (("images", ".jpg"), ("annotations", ".png")):
            (folder / "ade" / kind / split).mkdir(parents=True)
            mode = "L" if kind == "annotations" else "RGB"
            picture.convert(mode).save(folder / "ade" / kind / split / f"x{suffix}")
    log = folder / "run" / "20260101_000000" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    log.write_text('{"loss": 1.0, "lr": 0.1, "step": 1}\n')
    shutil.copytree(rendered_root, folder / "streets")
    for path in (folder / "streets").rglob("*_labelTrainIds.png"):
        path.unlink()
    return folder


DATA = ("--work-dir", "work", "--cfg-options", "data_root={given}/rendered")
MODEL = ("{given}/tiny_{number}.py", "{given}/weights.pth")
TOOLS = {
    "train": ("train", "{given}/tiny_{number}.py", *DATA),
    "demo": ("demo", *DATA),
    "test": ("test", *MODEL, *DATA),
    "predictions": ("test", *MODEL, "--out", "out", *DATA),
    "comparisons": ("test", *MODEL, "--show-dir", "out", *DATA),
    "predict": ("predict", *MODEL, "{given}/street.png", "--out", "out"),
    "attention": ("predict", *MODEL, "{given}/street.png", "--out", "out", "--attention"),
    "tiles": ("predict", *MODEL, "{given}/street.png", "--out", "out", "--tiles", "64"),
    "analyze": ("analyze", *MODEL, "--out", "out", "--device", "cpu", *DATA),
    "export": ("export", *MODEL, "--format", "torchscript", "--out", "out/net.pt"),
    "curves": ("analyze", "--runs", "{given}/run", "--out", "out"),
    "browse": ("browse", "{given}/tiny_{number}.py", "--out", "sheet.png", "--count", "1", *DATA[2:]),
    "evaluate": (
        *("evaluate", "{given}/camvid/valannot", "{given}/camvid/valannot"),
        *("--dataset", "camvid", "--out", "out", "--workers", "1"),
    ),
    "prepare demo": (*("prepare_dataset", "demo", "streets"), *("--train", "1", "--val", "1")),
    "prepare cityscapes": ("prepare_dataset", "cityscapes", "{given}/streets"),
    "prepare ade20k": ("prepare_dataset", "ade20k", "{given}/ade", "set"),
    "prepare camvid": ("prepare_dataset", "camvid", "{given}/camvid", "set"),
    "cache": ("prepare_dataset", "camvid", "{given}/camvid", "{given}/camvid", "--cache"),
}


@pytest.mark.parametrize("name", TOOLS)
def test_one_message_and_no_half_file(name, tool, given, rendered_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    MMLogger.get_instance(tmp_path.name)  # whose output is that of this test
    tool_name, *arguments = [one.format(given=given, number=list(TOOLS).index(name)) for one in TOOLS[name]]
    arguments = [rendered_root.join(one.split(f"{given}/rendered")) for one in arguments]
    before = files(given)
    with pytest.raises(SystemExit) as ended, full_disk():
        tool(tool_name).main(arguments)
    message = capsys.readouterr().err
    assert ended.value.code == 1
    assert "error: " in message and "Traceback" not in message
    assert "File too large" in message or "the disk may be full" in message  # GDAL does not say why
    # A log is empty, and YAPF's are its own.
    left = [path for path in files(tmp_path) if path.suffix != ".log" and "YAPF" not in path.parts]
    assert not left and files(given) == before


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
