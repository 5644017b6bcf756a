"""Everything a user does, one step after the other, with the tools: train, be killed, go on, test, predict.

Each step computes on the CPU and, where there is one, on a GPU: in processes of a launcher (gloo or NCCL), in
mixed precision (bfloat16 or float16 with its scale), with SyncBN.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from child_process import ROOT, environment
from danseg import apis
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.label_maps.cityscapes_labels import CLASS_IDS
from danseg.label_maps.label_png import read_label_map
from danseg.visualization import read_image

TINY = ROOT / "tests" / "engine" / "tiny.py"
KILLED, LAST = 5, 8  # iterations; every second one leaves a checkpoint

# Frames are tested whole, as tiles that are larger than a frame are.
CONFIG = f"""
_base_ = [{str(TINY)!r}]
data_root = DATA_ROOT
optim_wrapper = dict(clip_grad=dict(_delete_=True, max_norm=5))
train_cfg = dict(max_iters={LAST}, val_interval={LAST})
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end={LAST}, by_epoch=False)]
model = dict(test_cfg=dict(_delete_=True, mode="whole"))
recompute = ["backbone.layer1"]
"""
# The same training, which waits in the middle of it to be killed.
WAITS = f"""
from pathlib import Path
import time

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Waits(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == {KILLED}:
            Path(runner.work_dir, "waits").touch()
            time.sleep(300)
"""
WAITING = """
_base_ = ["whole.py"]
custom_imports = dict(imports=["danseg", "waits"])
custom_hooks = [dict(type="Waits")]
"""
OPTIONS = ("--amp", "--seed", "3", "--deterministic")


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@contextmanager
def started(folder: Path, *command: str | Path, **variables: str) -> Iterator[subprocess.Popen]:
    """A process that is killed at the end of the block; what it says is in the folder's ``said``.

    danseg sets what cuBLAS needs; convolutions are as exact as in this process.
    """
    variables = environment(folder, NVIDIA_TF32_OVERRIDE="0", **variables)
    variables.pop("CUBLAS_WORKSPACE_CONFIG", None)
    with open(folder / "said", "w") as said:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=variables,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(found: Callable[[], bool], process: subprocess.Popen, said: Path) -> None:
    for _ in range(2400):
        if found():
            return
        assert process.poll() is None, said.read_text()
        time.sleep(0.05)
    pytest.fail(f"it hangs: {said.read_text()}")


@pytest.fixture(scope="module")
def runs() -> dict[str, SimpleNamespace]:
    return {}


@pytest.fixture
def run(device, runs, tool, tmp_path_factory, rendered_root) -> SimpleNamespace:
    """The results of one training in a single go (``straight``) and of one that was killed (``work``)."""
    if device.type not in runs:
        runs[device.type] = trained(tool, tmp_path_factory.mktemp(device.type), rendered_root)
    return runs[device.type]


def trained(tool, folder: Path, rendered_root: str) -> SimpleNamespace:
    config, work, straight = folder / "whole.py", folder / "work", folder / "straight"
    config.write_text(CONFIG.replace("DATA_ROOT", repr(rendered_root)))
    (folder / "waits.py").write_text(WAITS)
    (folder / "waiting.py").write_text(WAITING)
    train = ROOT / "tools" / "train.py"
    alone = dict(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    arguments = ("--launcher", "pytorch", "--work-dir", work, *OPTIONS)
    with started(folder, train, folder / "waiting.py", *arguments, **alone) as killed:
        try:
            tool("train").main([str(config), "--work-dir", str(straight), *OPTIONS])  # meanwhile
        finally:
            torch.use_deterministic_algorithms(False)
            torch.backends.cudnn.deterministic = False
        wait_for((work / "waits").exists, killed, folder / "said")
    assert not (work / f"iter_{LAST}.pth").exists()
    shutil.copytree(work, folder / "killed")

    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=1", f"--master-port={free_port()}")
    with started(folder, *torchrun, train, config, *arguments, "--resume") as resumed:
        wait_for(lambda: resumed.poll() == 0, resumed, folder / "said")
    return SimpleNamespace(
        config=str(config),
        straight=straight,
        killed=folder / "killed",
        work=work,
        checkpoint=str(work / f"iter_{LAST}.pth"),
        said=(folder / "said").read_text(),
        pictures=[str(path) for path in sorted(Path(rendered_root, "leftImg8bit", "val").rglob("*.png"))],
    )


@pytest.fixture
def varied(run) -> str:
    """The trained weights, with labels that vary over a picture and attention that matters.

    So few iterations leave one class almost everywhere.
    """
    path = Path(run.checkpoint).with_name("varied.pth")
    if not path.exists():
        generator = torch.Generator().manual_seed(0)
        content = read_checkpoint(run.checkpoint)
        for name, value in content["state_dict"].items():
            if re.search(r"decode_head\.(conv_seg|pam\.(query|key)_project)\.weight", name):
                value.normal_(generator=generator)
            elif name.endswith("gamma.scale"):
                value.fill_(0.5)
        torch.save(content, path)
    return str(path)


def scalars(work: Path) -> list[dict]:
    paths = sorted(work.glob("*/vis_data/2*.json"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def losses(work: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in scalars(work) if "loss" in line}


def differing(one: dict, other: dict) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_as_if_it_had_not_been(run, device):
    straight = losses(run.straight)
    assert list(straight) == list(range(1, LAST + 1)) and np.isfinite(list(straight.values())).all()
    [*_, last] = [line for line in scalars(run.work) if "loss" in line]
    assert ("memory" in last) == (device.type == "cuda")  # MiB of the GPU
    before, after = losses(run.killed), losses(run.work)
    assert before == {step: straight[step] for step in before} and max(before) >= KILLED - 1
    assert after == straight
    whole, resumed = (read_checkpoint(path / f"iter_{LAST}.pth") for path in (run.straight, run.work))
    assert not differing(whole["state_dict"], resumed["state_dict"])
    assert whole["optimizer"].get("loss_scaler") == resumed["optimizer"].get("loss_scaler")
    assert ("loss_scaler" in resumed["optimizer"]) == (device.type == "cuda")
    assert ("cuda" in resumed["random_states"][0]) == (device.type == "cuda")
    assert not [name for name, value in whole["state_dict"].items() if value.device.type != "cpu"]
    assert ("float16 (mixed precision)" if device.type == "cuda" else "bfloat16 (mixed") in run.said
    assert f"continued after iteration {KILLED - 1}" in run.said and "start afresh" not in run.said
    [log] = [path.read_text() for path in run.killed.glob("*/*.log")]
    assert ("SyncBatchNorm becomes BatchNorm" in log) == (device.type == "cpu")
    for complaint in ("Traceback", "destroy_process_group() was not called", "device under current context"):
        assert complaint not in run.said


@pytest.mark.slow
def test_what_is_tested_is_what_is_predicted(run, varied, device, tool, tmp_path, capsys):
    """Labels that tools/test.py writes, those of tools/predict.py, and those of a network on the CPU."""
    score, out = tmp_path / "score", tmp_path / "tested"
    arguments = [run.config, varied, "--work-dir", str(score)]
    tool("test").main([*arguments, "--out", str(out), "--show-dir", str(tmp_path / "shown")])
    [report] = [json.loads(path.read_text()) for path in score.glob("metrics_*.json")]
    assert 0 < report["aAcc"] <= 100 and len(list((tmp_path / "shown").glob("*.png"))) == len(run.pictures)
    tested = {path.name.split("_pred")[0]: read_label_map(path) for path in out.glob("*.png")}

    precisions = ["float32", "bfloat16", *(["float16"] if device.type == "cuda" else [])]
    for precision, machine in [*((one, None) for one in precisions), ("float32", "cpu")]:
        there = tmp_path / f"{precision}_{machine}"
        where = ["--device", machine] if machine else []
        options = ["--out", str(there), "--precision", precision, *where]
        tool("predict").main([run.config, varied, *run.pictures, *options])
        for path in map(Path, run.pictures):
            stem = path.stem.removesuffix("_leftImg8bit")
            name = next(name for name in tested if name.startswith(stem))
            found = read_label_map(there / f"{path.stem}_labels.png")
            share = (np.asarray(CLASS_IDS)[found] == tested[name]).mean()
            assert share > (0.995 if precision == "float32" else 0.9), (precision, machine, share)
            assert len(np.unique(found)) > 5
    capsys.readouterr()
    tool("test").main([*arguments, "--tta"])
    assert "averaged over 4 views" in capsys.readouterr().out


@pytest.mark.slow
def test_tiles_are_the_whole(run, varied, device, tool, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    picture = run.pictures[0]
    whole, tiled = tmp_path / "whole", tmp_path / "tiled"
    tool("predict").main([run.config, varied, picture, "--out", str(whole)])
    tool("predict").main([run.config, varied, picture, "--out", str(tiled), "--tiles"])
    with rasterio.open(tiled / f"{Path(picture).stem}_labels.tif") as file:
        tiles = file.read(1)
    assert (tiles == read_label_map(whole / f"{Path(picture).stem}_labels.png")).mean() > 0.999


@pytest.mark.slow
def test_maps_are_drawn_and_are_those_of_the_cpu(run, varied, device, tool, tmp_path):
    picture, positions = run.pictures[0], [(3, 5), (100, 60)]
    asked = [f"{x},{y}" for x, y in positions]
    tool("predict").main([run.config, varied, picture, "--out", str(tmp_path), "--attention", *asked])
    drawn = tmp_path / f"{Path(picture).stem}_attention_decode_head.pam.png"
    assert read_image(drawn).shape[1] > 2 * 500
    own, cpu = (
        apis.attention_maps(apis.load_model(run.config, varied, where), picture, positions)
        for where in (device, "cpu")
    )
    assert own.keys() == cpu.keys() == {"decode_head.pam"}
    for name, maps in own.items():
        assert (
            maps.values == "shares"
            and (maps.over_image() > 2).any()
            and maps.rows.sum((1, 2)) == pytest.approx(1, abs=1e-4)
        )
        np.testing.assert_allclose(maps.rows, cpu[name].rows, rtol=1e-2, atol=1e-5)


@pytest.mark.slow
def test_a_training_goes_on_on_the_other_kind_of_device(run, device, tool, tmp_path, request, capsys):
    """From a GPU to a CPU and back; on the CPU from a checkpoint with what one of a GPU holds."""
    checkpoint = run.killed / f"iter_{KILLED - 1}.pth"
    if device.type == "cpu":
        content = read_checkpoint(checkpoint)
        content["random_states"][0]["cuda"] = torch.zeros(16, dtype=torch.uint8)
        content["optimizer"]["loss_scaler"] = dict(scale=65536.0, growth_tracker=0)
        checkpoint = tmp_path / "of_a_gpu.pth"
        torch.save(content, checkpoint)
    else:
        request.getfixturevalue("without_gpu")
    # On the other device --amp chooses another precision.
    other = ["--apply-changes"] if device.type == "cuda" else []
    arguments = [run.config, "--work-dir", str(tmp_path), "--amp", *other]
    half = ["default_hooks.checkpoint.interval=1", f"train_cfg.max_iters={KILLED}"]
    tool("train").main([*arguments, "--resume", str(checkpoint), "--cfg-options", *half])
    assert "the checkpoint was written on a GPU and this run is on a CPU" in capsys.readouterr().out
    if device.type == "cuda":
        request.getfixturevalue("monkeypatch").undo()
        tool("train").main([*arguments, "--resume"])
        assert "the checkpoint was written on a CPU and this run is on a GPU" in capsys.readouterr().out
    found = losses(tmp_path)
    assert list(found)[0] == KILLED and np.isfinite(list(found.values())).all()
