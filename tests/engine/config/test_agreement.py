"""The check of a whole config: silence about sound ones, one message about the others, before a run."""

import time
from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config

from broken_config import tiny_with
from danseg.engine.config.agreement import check_agreement, disagreements
from danseg.engine.config.config_file import load_config
from danseg.engine.config.options import configure_test
from danseg.engine.test import test as evaluate
from danseg.engine.train import train
from danseg.errors import UserError

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.py"))
INSTALLED = Path(mmseg.__file__).parent / ".mim" / "configs"
# Faults that mmseg's own configs have: they cannot be trained, or contradict themselves.
KNOWN_FAULTS = {
    "bisenetv2": "size_divisor=None: neither given",  # training stops at its first batch
    "san": "has 21 classes, but model.decode_head.num_classes=20",
    "unet": "pixels that do not count have one value",  # HSI Drive: heads and metric ignore 0, the data 255
}


def test_there_are_configs():
    assert len(CONFIGS) > 60


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_this_projects_configs_agree(path):
    config = load_config(path)
    for task in ("train", "test"):
        assert list(disagreements(config, task)) == []
    configure_test(config, tta=True, work_dir="work")
    assert check_agreement(config, "test") == []


@pytest.mark.slow
def test_configs_of_mmseg_agree():
    """No false alarm about one config of each kind that mmseg installs, nor about any with faults."""
    kinds = [folder for folder in sorted(INSTALLED.iterdir()) if folder.name not in ("_base_", "dsdl")]
    paths = [path for folder in kinds for path in sorted(folder.rglob("*.py"))[:1]]
    if not paths:
        pytest.skip("mmseg is installed without its configs")
    for path in paths:
        config = Config.fromfile(path, import_custom_modules=False)
        for task in ("train", "test"):
            found = [one for one in disagreements(config, task) if "is not installed" not in one]
            fault = KNOWN_FAULTS.get(path.parent.name, "no known fault")
            assert all(fault in one for one in found), (path, found)


def test_it_takes_little_time():
    config = load_config(CONFIGS[0])
    check_agreement(config, "train")  # imports what it needs
    started = time.perf_counter()
    check_agreement(config, "train")
    assert time.perf_counter() - started < 0.3  # 0.02 s on an idle core


def test_all_disagreements_are_one_message():
    options = {
        "model.decode_head.pam_chanels": 7,
        "model.data_preprocessor.seg_pad_val": 0,
        "param_scheduler.0.by_epoch": True,
        "val_evaluator.type": "ExactIouMetric",
    }
    with pytest.raises(UserError) as caught:
        check_agreement(tiny_with(options), "train")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("config ") and lines[0].endswith("tiny.py disagrees with itself:")
    assert len(lines) == 1 + len(options)
    for key in options:
        assert sum(line.startswith(f"  {key}=") or f"{key}=" in line for line in lines) == 1, key


def test_a_scope_that_is_no_name():
    (message,) = disagreements(tiny_with({"default_scope": 3}), "train")
    assert message.startswith("default_scope=3")


def test_the_pipeline_of_augmentation_is_named_as_the_user_knows_it():
    config = tiny_with({"tta_pipeline.1.transforms.0.1.keep_rato": True, "tta_model.type": "SegTTAModl"})
    assert list(disagreements(config, "test")) == []  # without --tta
    configure_test(config, tta=True, work_dir="work")
    model, transform = disagreements(config, "test")
    assert model.startswith("tta_model.type='SegTTAModl'")
    assert transform.startswith("tta_pipeline.1.transforms.0.1.keep_rato=True: Resize has no argument")


@pytest.mark.parametrize(
    "options",
    [
        {"val_evaluator.iou_metrics": ["mIou"]},
        {"val_dataloader.sampler.type": "Nothing"},
        {"optim_wrapper.optimizer.type": "SDG"},
        {"model.decode_head.num_classes": 7},
    ],
    ids=str,
)
def test_a_training_stops_before_it_reads_its_data(tmp_path, monkeypatch, options):
    monkeypatch.setattr("danseg.engine.train.check_data", lambda *_: pytest.fail("data are read"))
    config = tiny_with(options)
    config.work_dir, config.launcher = str(tmp_path / "work"), "none"
    with pytest.raises(UserError, match=next(iter(options)).replace(".", r"\.")):
        train(config)
    assert not (tmp_path / "work").exists()


def test_a_test_stops_before_it_reads_its_checkpoint(tmp_path):
    config = tiny_with({"test_evaluator.iou_metrics": ["mIou"]})
    configure_test(config, work_dir=str(tmp_path / "work"))
    with pytest.raises(UserError, match=r"test_evaluator\.iou_metrics='mIou'"):
        evaluate(config, str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"optim_wrapper.optimizer.nesterov": True, "optim_wrapper.optimizer.momentum": 0},
            r"optim_wrapper\.optimizer \(SGD\): Nesterov momentum requires",
        ),
        ({"param_scheduler.0.begin": 9}, r"param_scheduler\.0 \(PolyLR\): .*end should be larger than begin"),
        ({"val_evaluator.output_format": "citi"}, r"val_evaluator \(ExactIoUMetric\): .*citi"),
        (
            {"default_hooks.checkpoint.save_best": ["mIoU", "mIoU"]},
            r"default_hooks\.checkpoint \(.*\): .*dupli",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_constructor_finds_out_stops_before_the_first_iteration(tiny, options, message):
    config = tiny(options)
    with pytest.raises(UserError, match=rf"(?s)config .*\.py: {message}") as caught:
        train(config, log=lambda _: None)
    assert "Iter(train)" not in str(caught.value)


def test_warnings_are_said_at_the_start(tiny):
    said = []
    config = tiny({"train_cfg.max_iters": 1, "param_scheduler.0.end": 3})
    train(config, log=said.append)
    assert said[0].startswith("warning: param_scheduler.0.end=3, but train_cfg.max_iters=1")
    assert said[1].startswith("warning: optim_wrapper.optimizer.lr=0.02 is for a total batch of")
