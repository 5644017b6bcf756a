"""Damaged and foreign files through every tool that reads them."""

import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image

import fork_server
from mutations import MUTATIONS, SAME_SIZE, Mutation, mutate_text
from outcome import Fault, Outcome, Place, faults_of
from shared import TINY, Shared, cache, copied, results, scored_folders, training
from wholeness import complaint

Command = tuple[str, list[object]]  # a tool and its arguments


@dataclass(frozen=True)
class Target:
    """A file that a tool reads.

    Attributes:
        prepare: makes the inputs in a folder, and gives the file to damage.
        command: tool and arguments, for the folder and that file.
        mutations: what can happen to it.
        checked: whether the data set counts as checked before the damage, whose time the file then keeps.
        program: whether the file is one, which may do what it likes if it still runs.
    """

    prepare: Callable[[Shared, Path, Random], Path]
    command: Callable[[Path, Path], Command]
    mutations: dict[str, Mutation]
    checked: bool = False
    program: bool = False


def _frame(kind: str, part: str) -> Callable[[Shared, Path, Random], Path]:
    def prepare(shared: Shared, folder: Path, random: Random) -> Path:
        tree = copied(shared.data, folder / "data")
        suffix = {"leftImg8bit": "_leftImg8bit.png", "gtFine": "_gtFine_labelTrainIds.png"}[kind]
        return random.choice(sorted(tree.glob(f"{kind}/{part}/*/*{suffix}")))

    return prepare


def _picture(shared: Shared, folder: Path, random: Random) -> Path:
    frame = random.choice(sorted(shared.data.glob("leftImg8bit/val/*/*.png")))
    suffix, options = random.choice(
        (
            (".png", {}),
            (".jpg", {}),
            (".tif", {"compression": "tiff_adobe_deflate"}),
            (".tif", {}),
            (".webp", {}),
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"picture{suffix}"
    with Image.open(frame) as image:
        image.convert("RGB").save(path, **options)
    return path


def _checkpoint(shared: Shared, folder: Path, random: Random) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    source = shared.trained / random.choice(("iter_4.pth", _best(shared.trained)))
    path = folder / "some.pth"
    if random.random() < 0.1:  # a bare pickle, as PyTorch wrote until 2020
        torch.save(torch.load(source, weights_only=False), path, _use_new_zipfile_serialization=False)
    else:
        shutil.copy(source, path)
    return path


def _resumable(shared: Shared, folder: Path, random: Random) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(shared.trained / "iter_4.pth", folder / "iter_4.pth"))


def _work_dir(shared: Shared, folder: Path, random: Random) -> Path:
    return copied(shared.trained, folder / "out") / "iter_4.pth"


def _best(work_dir: Path) -> str:
    return next(work_dir.glob("best_*.pth")).name


def _config(shared: Shared, folder: Path, random: Random) -> Path:
    copied(shared.data, folder / "data")
    return Path(shutil.copy(TINY, folder / "config.py"))


def _scored(which: int) -> Callable[[Shared, Path, Random], Path]:
    def prepare(shared: Shared, folder: Path, random: Random) -> Path:
        return random.choice(sorted(scored_folders(shared.data, folder)[which].iterdir()))

    return prepare


def _train(folder: Path, iterations: int = 3, *options: str, **more: Any) -> Command:
    return "train", training(folder / "data", folder / "out", iterations, *options, **more)


def _test(folder: Path, checkpoint: Path) -> Command:
    work_dir = ("--work-dir", folder / "out")
    return "test", [TINY, checkpoint, *work_dir, "--cfg-options", f"data_root={folder / 'data'}"]


def _predict(folder: Path, picture: Path, checkpoint: Path, *more: object) -> Command:
    return "predict", [TINY, checkpoint, picture, "--out", folder / "out", *more]


def _evaluate(folder: Path, _: Path) -> Command:
    folders = (folder / "predictions", folder / "truth")
    return "evaluate", [*folders, "--dataset", "demo", "--out", folder / "out", "--workers", 1]


def _on(name: str) -> Callable[[Path, Path], Command]:
    """Commands with a good checkpoint or picture beside the damaged file; the folder has a link to it."""
    return {
        "test": lambda folder, _: _test(folder, folder / "good.pth"),
        "predict": lambda folder, path: _predict(folder, path, folder / "good.pth"),
        "tiles": lambda folder, path: _predict(folder, path, folder / "good.pth", "--tiles", 64),
        "predict checkpoint": lambda folder, path: _predict(folder, folder / "good.png", path),
    }[name]


def _resume(folder: Path, path: Path) -> Command:
    return _train(folder, 5, more=("--resume", path))


TARGETS: dict[str, Target] = {
    "training image": Target(_frame("leftImg8bit", "train"), lambda folder, _: _train(folder), MUTATIONS),
    "training label": Target(_frame("gtFine", "train"), lambda folder, _: _train(folder), MUTATIONS),
    "checked image": Target(
        _frame("leftImg8bit", "train"), lambda folder, _: _train(folder), SAME_SIZE, checked=True
    ),
    "checked label": Target(
        _frame("gtFine", "train"), lambda folder, _: _train(folder), SAME_SIZE, checked=True
    ),
    "tested image": Target(_frame("leftImg8bit", "val"), _on("test"), MUTATIONS),
    "tested label": Target(_frame("gtFine", "val"), _on("test"), MUTATIONS),
    "picture": Target(_picture, _on("predict"), MUTATIONS),
    "picture by tiles": Target(_picture, _on("tiles"), MUTATIONS),
    "tested checkpoint": Target(_checkpoint, _test, MUTATIONS),
    "predicting checkpoint": Target(_checkpoint, _on("predict checkpoint"), MUTATIONS),
    "load_from": Target(_checkpoint, lambda folder, path: _train(folder, 3, f"load_from={path}"), MUTATIONS),
    "--resume PATH": Target(_resumable, _resume, MUTATIONS),
    "newest of a work dir": Target(
        _work_dir, lambda folder, _: _train(folder, 5, more=("--resume",)), MUTATIONS
    ),
    "config": Target(
        _config, lambda folder, path: _train(folder, config=path), {"text": mutate_text}, program=True
    ),
    "prediction": Target(_scored(0), _evaluate, MUTATIONS),
    "evaluated label": Target(_scored(1), _evaluate, MUTATIONS),
}


def trial(place: Place) -> Outcome:
    names = list(TARGETS)
    name = names[place.number % len(names)]
    target = TARGETS[name]
    expected = _without_damage(place, name, target)
    path = _prepared(place, target, place.folder)
    mutations = list(target.mutations)
    mutation = mutations[place.number // len(names) % len(mutations)]
    before, times = path.read_bytes(), path.stat()
    damaged = target.mutations[mutation](before, place.random)
    path.write_bytes(damaged)
    if target.checked:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    tool, arguments = target.command(place.folder, path)
    status, text = _carried_out(place.folder, tool, arguments, place.seconds)
    wrong = [f"{name}, {mutation}: {one}" for one in faults_of(text, status)]
    if target.program and status in (None, 0) and "Iter(train)" in text:
        return Outcome("runs", [one for one in wrong if "hang" not in one])  # a longer training is none
    if wrong or status:
        return Outcome("refused" if status == 1 else "ended otherwise", wrong)
    if results(place.folder / "out") == expected:
        return Outcome("same result")
    reason = complaint(damaged)
    if not reason:
        return Outcome("other content, valid")
    if "not resuming from" in text:
        return Outcome("an older one taken")
    return Outcome("accepted", [f"{name}, {mutation}: accepted, although {reason}"])


def _prepared(place: Place, target: Target, folder: Path) -> Path:
    """The file to damage, with all that its command needs beside it."""
    shared = place.shared
    path = target.prepare(shared, folder, place.random)
    for link, to in {
        "data": shared.data,
        "good.pth": shared.trained / "iter_4.pth",
        "good.png": min(shared.data.glob("leftImg8bit/val/*/*.png")),
    }.items():
        if not (folder / link).exists():
            (folder / link).symlink_to(to)
    if target.checked:
        copied(shared.cache, folder / "cache")
    return path


def _without_damage(place: Place, name: str, target: Target) -> list[str]:
    """What the same command gives with the file as it was. The trial's random numbers stay as they are."""
    state = place.random.getstate()
    whole = place.folder / "whole"
    path = _prepared(place, target, whole)

    def run() -> list[str]:
        tool, arguments = target.command(whole, path)
        status, text = _carried_out(whole, tool, arguments, place.seconds)
        if status != 0:
            raise RuntimeError(f"{tool} without damage ended with status {status}:\n{text}")
        return results(whole / "out")

    expected = place.shared.once(f"{name} {path.name} {path.stat().st_size}", run)
    place.random.setstate(state)
    shutil.rmtree(whole)
    return expected


def _carried_out(folder: Path, tool: str, arguments: list[object], seconds: float) -> tuple[int | None, str]:
    run = fork_server.start(
        tool, arguments, folder / "output.txt", prepare=limit_memory, variables=cache(folder / "out")
    )
    return run.wait(seconds), run.text()


def limit_memory() -> None:
    """A size that a damaged file claims is refused, or fails; it does not take the machine's memory."""
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))


FAULTS = [Fault("mutated inputs", 1000, trial)]
