"""tools/train.py from its command line: runs, resumed runs, two processes, and what goes wrong."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from child_process import environment
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.config import config_file as reading
from danseg.export import exported_config
from launch import launch

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "engine" / "tiny.py"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Operations on tiny images cost less than handing them to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def command(tool, tmp_path, rendered_root):
    """Run a tool on a copy of the tiny config; mmengine distinguishes runs of one process by its name."""
    number = 0

    def run(name, *arguments, data_root=rendered_root, options=()):
        nonlocal number
        number += 1
        config = tmp_path / f"{tmp_path.name}_{number}.py"
        config.write_text(f'_base_ = ["{TINY}"]\n')
        tool(name).main(
            [
                str(config),
                *map(str, arguments),
                "--work-dir",
                str(tmp_path / "work"),
                "--cfg-options",
                f"data_root={data_root}",
                *options,
            ]
        )

    return run


def scalars(work):
    lines = []
    for path in sorted(work.glob("*/vis_data/2*.json")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return lines


def weights_equal(a, b):
    a, b = read_checkpoint(a)["state_dict"], read_checkpoint(b)["state_dict"]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def failure(capsys, run, *arguments, **keywords):
    """The message of a command that must fail."""
    with pytest.raises(SystemExit) as ended:
        run(*arguments, **keywords)
    assert ended.value.code == 1
    message = capsys.readouterr().err.rpartition("error: ")[2]
    assert message and "Traceback" not in message
    return message


@pytest.mark.slow
def test_train_validate_checkpoint_resume_and_test(command, tmp_path, capfd):
    work = tmp_path / "work"
    command("train", "--seed", 3)
    straight = tmp_path / "straight.pth"
    shutil.copy(work / "iter_4.pth", straight)
    said = capfd.readouterr()
    assert f"last checkpoint: {work / 'iter_4.pth'}" in said.out + said.err
    assert re.search(r"best checkpoint: .*best_mIoU_iter_4.pth \(mIoU", said.out + said.err)
    logged = [line for line in scalars(work) if "mIoU" in line][-1]
    if importlib.util.find_spec("tensorboard"):
        assert list(work.glob("*/vis_data/events.out.tfevents.*"))

    # The newest checkpoint is damaged and the note about the last one is gone: resume from the one before.
    cut = work / "iter_4.pth"
    cut.write_bytes(cut.read_bytes()[:1000])
    (work / "last_checkpoint").unlink()
    moved = tmp_path / "moved"
    shutil.copytree(work, moved)
    shutil.rmtree(work)
    moved.rename(work)
    command("train", "--resume")  # without a seed: the checkpoint has it
    assert "iter_4.pth is cut off" in "".join(capfd.readouterr())
    assert weights_equal(straight, work / "iter_4.pth")  # augmentation, order and dropout continued

    command("test", work / "iter_4.pth")
    report = json.loads(next(work.glob("metrics_*.json")).read_text())
    assert report["mIoU"] == logged["mIoU"]
    assert report["classes"]["road"]["IoU"] is not None

    command("train", "--resume", straight, options=["train_cfg.max_iters=5"])
    assert (work / "iter_5.pth").is_file()


@pytest.mark.slow
def test_the_config_is_built_and_a_resumed_checkpoint_read_once(command, monkeypatch, tmp_path):
    options = ["train_cfg.max_iters=1", "default_hooks.checkpoint.interval=1"]
    command("train", options=options)
    configs, read = [], reading.load_config
    for module in (reading, exported_config):
        monkeypatch.setattr(
            module, "load_config", lambda path, *rest: configs.append(path) or read(path, *rest)
        )
    loads, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, *a, **kw: loads.append(str(path)) or load(path, *a, **kw))
    command("train", "--resume", options=["train_cfg.max_iters=2"])
    # The best one for its score.
    read_files = [str(tmp_path / "work" / name) for name in ("iter_1.pth", "best_mIoU_iter_1.pth")]
    assert len(configs) == 1 and loads == read_files
    command("test", tmp_path / "work" / "iter_1.pth")
    assert len(configs) == 2 and len(loads) == 3


@pytest.mark.slow
def test_learning_rate_follows_the_total_batch(command, tmp_path):
    quick = ["train_cfg.max_iters=1", "param_scheduler=None"]
    command("train", "--auto-scale-lr", options=quick)
    assert scalars(tmp_path / "work")[0]["lr"] == pytest.approx(0.02 * 2 / 8)


@pytest.mark.slow
def test_mixed_precision_on_cpu(command, tmp_path, capsys):
    command("train", "--amp", options=["train_cfg.max_iters=1"])
    assert np.isfinite(scalars(tmp_path / "work")[0]["loss"])
    assert "bfloat16" in failure(capsys, command, "train", "--amp", "float16")


@pytest.mark.slow
def test_deterministic_training_takes_cublas_along(command, tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        command("train", "--deterministic", options=["train_cfg.max_iters=1", "param_scheduler=None"])
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
    assert np.isfinite(scalars(tmp_path / "work")[0]["loss"])


def test_a_failed_write_leaves_the_older_checkpoint(command, tmp_path, capsys, monkeypatch):
    def full_disk(written, final):
        if Path(final).name == "iter_4.pth":
            raise OSError(28, "No space left on device")
        replace(written, final)

    replace = os.replace
    monkeypatch.setattr(os, "replace", full_disk)
    message = failure(capsys, command, "train", options=["default_hooks.checkpoint.max_keep_ckpts=1"])
    assert "No space left" in message and "--resume" in message
    work = tmp_path / "work"
    assert [p.name for p in work.glob("*.pth")] == ["iter_2.pth"]
    assert not list(work.glob(".*.part"))
    read_checkpoint(work / "iter_2.pth")


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint(command, tmp_path, capsys):
    options = ["optim_wrapper.optimizer.lr=1e30", "param_scheduler=None", "train_cfg.val_interval=100"]
    message = failure(capsys, command, "train", options=options)
    assert "learning rate was 1e+30" in message and "iteration" in message
    assert not list((tmp_path / "work").glob("*.pth"))


def test_what_cannot_work_is_said_before_training(tool, command, tmp_path, capsys, rendered_root):
    with pytest.raises(SystemExit):
        tool("train").main([str(TINY.with_name("tinny.py"))])
    assert "did you mean" in capsys.readouterr().err

    message = failure(capsys, command, "train", data_root=tmp_path / "nothing")
    assert str(tmp_path / "nothing") in message and "tools/prepare_dataset.py demo" in message
    message = failure(capsys, command, "train", options=["model.auxiliary_head.num_classes=7"])
    assert "19 classes" in message and "model.auxiliary_head.num_classes=7" in message
    message = failure(capsys, command, "train", options=["model.decode_head.pam_chanels=7"])
    assert "pam_chanels" in message
    message = failure(capsys, command, "train", options=["model.pretrained=open-mmlab://resnet_of_nobody"])
    assert "open-mmlab://resnet_of_nobody" in message and "model.pretrained=None" in message
    assert "exclude each other" in failure(capsys, command, "train", "--resume", "--start-over")
    message = failure(capsys, command, "train", "--resume", tmp_path / "none.pth")
    assert "none.pth does not exist" in message
    message = failure(capsys, command, "train", "--apply-changes")
    assert "--apply-changes" in message and "add --resume" in message


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_fails_in_the_middle_is_named(
    command, tmp_path, capsys, monkeypatch, workers, rendered_root
):
    from danseg.engine import train as train_module

    root = tmp_path / "data"
    shutil.copytree(rendered_root, root)
    monkeypatch.setattr(train_module, "check_data", lambda config, splits: [])  # it would find them first
    for path in root.glob("leftImg8bit/train/*/*.png"):
        path.write_bytes(path.read_bytes()[:40])
    options = [f"train_dataloader.num_workers={workers}"]
    message = failure(capsys, command, "train", data_root=root, options=options)
    assert re.search(r"image .*_leftImg8bit\.png with label .*labelTrainIds\.png cannot be used", message)


@pytest.mark.slow
def test_two_processes_train_evaluate_and_checkpoint(command, tmp_path, rendered_root):
    work, pair = tmp_path / "work", tmp_path / "pair"
    options = ("--cfg-options", f"data_root={rendered_root}", "train_cfg.val_interval=2")
    trained = launch(2, "train", TINY, "--work-dir", pair, "--seed", 0, *options)
    assert trained.returncode == 0, trained.stderr
    logged = {line["step"]: line["mIoU"] for line in scalars(pair) if "mIoU" in line}
    assert logged.keys() == {2, 4}
    assert not list(pair.glob(".*.part"))
    for step, value in logged.items():  # five images: one process has one more than the other
        command("test", pair / f"iter_{step}.pth")
        newest = max(work.glob("metrics_*.json"), key=os.path.getmtime)
        assert json.loads(newest.read_text())["mIoU"] == value
        newest.unlink()

    out = tmp_path / "two" / "predictions"
    tested = launch(
        2, "test", TINY, pair / "iter_4.pth", "--work-dir", tmp_path / "two", "--out", out, *options
    )
    assert tested.returncode == 0, tested.stderr
    report = json.loads(next((tmp_path / "two").glob("metrics_*.json")).read_text())
    assert report["mIoU"] == logged[4]
    assert len(list(out.glob("*.png"))) == 5


@pytest.mark.slow
def test_two_nodes_without_a_common_folder_go_on_together(tmp_path, rendered_root):
    """The node whose process writes checkpoints has changed: the other one has the file."""
    without_validation = [f"val_{part}=None" for part in ("dataloader", "cfg", "evaluator")]
    options = ("--seed", 0, "--cfg-options", f"data_root={rendered_root}", *without_validation)
    straight = launch(2, "train", TINY, "--work-dir", tmp_path / "straight", *options)
    assert straight.returncode == 0, straight.stderr
    (tmp_path / "1").mkdir()
    shutil.copy(tmp_path / "straight" / "iter_2.pth", tmp_path / "1")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = []
    for rank in ("0", "1"):
        command = [sys.executable, ROOT / "tools" / "train.py", TINY, "--launcher", "pytorch", "--resume"]
        place = dict(RANK=rank, LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        nodes.append(
            subprocess.Popen(
                [*map(str, command), "--work-dir", str(tmp_path / rank), *map(str, options)],
                env=environment(CUDA_VISIBLE_DEVICES="", **place),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "iter_2.pth is not on rank 0: its content comes from rank 1" in said[0]
    assert "continued after iteration 2" in said[0] and "starts anew" not in said[0]
    assert weights_equal(tmp_path / "straight" / "iter_4.pth", tmp_path / "0" / "iter_4.pth")


@pytest.mark.slow
def test_two_processes_give_one_message_about_missing_data(tmp_path):
    failed = launch(
        2, "train", TINY, "--work-dir", tmp_path, "--cfg-options", f"data_root={tmp_path / 'none'}"
    )
    assert failed.returncode != 0
    assert failed.stderr.count("error: ") == 1
    assert "is missing" in failed.stderr
