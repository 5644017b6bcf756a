"""Files that carry code, through every tool that reads files of their kind: none may run.

Each file tries to make a canary, a file in the trial's folder. Python configs are no part of this: they are
programs, and a user who runs one runs it.
"""

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fork_server
from outcome import Fault, Outcome, Place, faults_of
from shared import TINY, Shared, cache, copied, scored_folders, training

CANARY = "canary"


@dataclass
class Touch:
    """Unpickled by a reader without care, it makes the canary."""

    canary: str

    def __reduce__(self) -> tuple:
        return eval, (f"open({self.canary!r}, 'w')",)


def _everywhere(whole: dict[str, Any], evil: Any) -> Iterator[tuple[str, Any]]:
    """Checkpoints with an object in each of their places."""
    yield "alone", evil
    yield "state_dict", {**whole, "state_dict": evil}
    first = next(iter(whole["state_dict"]))
    yield "a weight", {**whole, "state_dict": {**whole["state_dict"], first: evil}}
    for key in ("meta", "optimizer", "message_hub", "param_schedulers", "something_else"):
        inside = {**whole[key], "more": evil} if isinstance(whole.get(key), dict) else [evil]
        yield key, {**whole, key: inside}


def _checkpoints(shared: Shared, folder: Path, canary: str) -> Iterator[tuple[str, Path]]:
    whole = torch.load(shared.trained / "iter_4.pth", map_location="cpu", weights_only=False)
    evil = Touch(canary)
    for name, content in _everywhere(whole, evil):
        for form, zipped in (("zip", True), ("old form", False)):
            path = folder / f"{name.replace(' ', '_')}_{form.replace(' ', '_')}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            yield f"{name}, {form}", path
    path = folder / "bare_pickle.pth"
    path.write_bytes(pickle.dumps(evil))
    yield "a bare pickle", path
    path = folder / "config_text.pth"
    text = f"open({canary!r}, 'w')\n{TINY.read_text()}"
    # mmengine and mmseg keep a config's text here, and have functions that run it.
    torch.save({**whole, "meta": {**whole["meta"], "cfg": text, "config": text}}, path)
    yield "a config's text", path
    path = folder / "config_type.pth"
    # mmengine imports and calls what a dotted type names.
    text = f"model = dict(type='os.mkdir', path={canary!r})"
    torch.save({**whole, "meta": {**whole["meta"], "cfg": text}}, path)
    yield "a config's type", path
    path = folder / "script.pth"
    torch.jit.script(torch.nn.Identity()).save(str(path))
    with_code = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(with_code, "w") as out:
        for name in archive.namelist():
            content = archive.read(name)
            out.writestr(name, pickle.dumps(evil) if name.endswith(".pkl") else content)
    path.write_bytes(with_code.getvalue())
    yield "a TorchScript archive", path


def _texts(canary: str) -> dict[str, str]:
    code = f"open({canary!r}, 'w')"
    return {
        "config.yaml": f'model: !!python/object/apply:builtins.eval ["{code}"]\n',
        "config.yml": f'_base_: []\nx: !!python/object/new:builtins.eval ["{code}"]\n',
        "config.json": json.dumps({"_base_": [str(TINY)], "x": f"{{{{ {code} }}}}", "custom_imports": code}),
        "config.txt": code,
    }


def _pictures(folder: Path, canary: str) -> Iterator[tuple[str, Path]]:
    array = io.BytesIO()
    np.save(array, np.array([Touch(canary)], dtype=object), allow_pickle=True)
    for suffix in (".png", ".tif", ".npy", ".jpg"):
        for name, content in {"pickle": pickle.dumps(Touch(canary)), "npy": array.getvalue()}.items():
            path = folder / f"{name}{suffix}"
            path.write_bytes(content)
            yield f"{name} as {suffix}", path
    path = folder / "virtual.tif"  # GDAL's format that can hold Python
    path.write_text(
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTDerivedRasterBand"><PixelFunctionType>f</PixelFunctionType>'
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode><![CDATA[\n"
        f"def f(*args, **kwargs):\n    open({canary!r}, 'w')\n]]></PixelFunctionCode>"
        "</VRTRasterBand></VRTDataset>"
    )
    yield "GDAL's Python", path


Case = tuple[str, str, list[object]]  # what it is, tool, arguments


OUT = Path("out")  # in the trial's own folder, where its tool works


def cases(shared: Shared) -> list[Case]:
    """All files with code, made once, and the commands that read them."""
    return shared.once("code", lambda: list(_cases(shared, shared.root / "code")))


def _cases(shared: Shared, files: Path) -> Iterator[Case]:
    files.mkdir()
    canary = str(files / CANARY)
    frame, good = min(shared.data.glob("leftImg8bit/val/*/*.png")), shared.trained / "iter_4.pth"
    data = ("--cfg-options", f"data_root={shared.data}")
    for what, path in _checkpoints(shared, files, canary):
        yield from (
            (f"test {what}", "test", [TINY, path, "--work-dir", OUT, *data]),
            (f"predict {what}", "predict", [TINY, path, frame, "--out", OUT]),
            (f"predict with {what} alone", "predict", [path, frame, "--out", OUT]),
            (f"test {what} alone", "test", [path, "--work-dir", OUT]),
            (f"publish {what}", "publish", [path, "--config", TINY, "--out", OUT / "published.pth"]),
            (f"resume {what}", "train", training(shared.data, OUT, 5, more=("--resume", path))),
            (f"load_from {what}", "train", training(shared.data, OUT, 1, f"load_from={path}")),
            (f"pretrained {what}", "train", training(shared.data, OUT, 1, f"model.pretrained={path}")),
            (
                f"newest {what}",
                "train",
                training(shared.data, _with_newest(files, path), 1, more=("--resume",)),
            ),
        )
    for name, text in _texts(canary).items():
        path = files / name
        path.write_text(text)
        child = files / f"{path.suffix[1:]}_child.py"
        child.write_text(f"_base_ = [{str(path)!r}]\n")
        yield from (
            (f"{config.name} as config", "train", training(shared.data, OUT, 1, config=config))
            for config in ((path, child) if path.suffix != ".txt" else (path,))
        )
        yield (f"{name}, test", "test", [path, good, "--work-dir", OUT, *data])
    for what, path in _pictures(files, canary):
        yield from (
            (f"predict {what}", "predict", [TINY, good, path, "--out", OUT]),
            (f"tiles {what}", "predict", [TINY, good, path, "--out", OUT, "--tiles", 64]),
        )
        tree = copied(shared.data, files / f"tree_{path.name}")
        label = min(tree.glob("gtFine/train/*/*_labelTrainIds.png"))
        shutil.copy(path, label)
        scored = scored_folders(shared.data, files / f"scored_{path.name}")
        shutil.copy(path, min(scored[len(path.name) % 2].iterdir()))
        yield from (
            (f"train {what}", "train", training(tree, OUT, 1)),
            (f"evaluate {what}", "evaluate", [*scored, "--dataset", "demo", "--workers", 1, "--out", OUT]),
        )
    for weights in (".npy", ".pkl"):
        path = files / f"class_weight{weights}"
        whole = (files / "npy.npy").read_bytes()
        path.write_bytes(whole if weights == ".npy" else pickle.dumps(Touch(canary)))
        option = f"model.decode_head.loss_decode.class_weight={path}"
        yield (f"class weights {weights}", "train", training(shared.data, OUT, 1, option))


def _with_newest(files: Path, path: Path) -> Path:
    work_dir = files / f"work_{path.stem}"
    work_dir.mkdir()
    shutil.copy(path, work_dir / "iter_9.pth")
    return work_dir


def trial(place: Place) -> Outcome:
    """One file through one command; the numbers of the trials go through all of them."""
    made = cases(place.shared)
    what, tool, arguments = made[place.number % len(made)]
    run = fork_server.start(
        tool, arguments, place.folder / "output.txt", variables=cache(place.shared.trained)
    )
    status = run.wait(place.seconds)
    wrong = faults_of(run.text(), status)
    canary = place.shared.root / "code" / CANARY
    if canary.exists():
        wrong.append("executed")
        canary.unlink()
    return Outcome("refused" if status else "read without its code", [f"{what}: {one}" for one in wrong])


FAULTS = [Fault("code in files", lambda shared: len(cases(shared)), trial)]
