"""The runner: errors about wrong configs, loading of weights that fit, writing of whole files."""

import logging
import os
from pathlib import Path

import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from danseg.engine.config.options import configure_test
from danseg.engine.hooks import MergeBatchNormHook, NonFiniteLossHook, RandomStateHook
from danseg.engine.runner import DansegRunner
from danseg.errors import UserError

TINY = Path(__file__).with_name("tiny.py")


@pytest.fixture
def built(tiny):
    def build(options=None, **arguments):
        config = tiny({"default_hooks.checkpoint.type": "SafeCheckpointHook", **(options or {})})
        for key, value in arguments.items():
            config[key] = value
        return DansegRunner.from_cfg(config)

    return build


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model.decode_head.type": "DANetHed"}, "DANetHed"),
        ({"model.decode_head.pam_chanels": 7}, "pam_chanels"),
    ],
)
def test_a_name_that_does_not_exist_is_a_users_error(built, options, message):
    with pytest.raises(UserError, match=rf"config .*\.py.*{message}"):
        built(options)


def test_runs_of_one_second_have_logs_of_their_own(built, monkeypatch):
    monkeypatch.setattr("mmengine.runner.runner.time.time", lambda: 1e9)
    first, second = built(), built()
    first.logger.info("said by the first")
    second.logger.info("said by the second")
    assert first.work_dir == second.work_dir and second.timestamp == f"{first.timestamp}_2"
    for runner, said, other in ((first, "first", "second"), (second, "second", "first")):
        log = Path(runner.log_dir, f"{runner.timestamp}.log").read_text()
        assert f"said by the {said}" in log and f"said by the {other}" not in log


def test_hooks_that_keep_a_training_sound_are_always_there(built):
    kinds = {type(hook) for hook in built().hooks}
    assert {MergeBatchNormHook, NonFiniteLossHook, RandomStateHook} <= kinds


@pytest.mark.parametrize(
    ("task", "deterministic", "given", "found"),
    [
        ("train", True, None, ":4096:8"),
        ("test", True, None, ":4096:8"),
        ("train", True, ":16:8", ":16:8"),
        ("train", False, None, None),
    ],
)
def test_products_on_a_gpu_repeat_where_that_is_asked_for(
    tiny, monkeypatch, task, deterministic, given, found
):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if given:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given)
    config = tiny({"randomness": dict(seed=0, deterministic=deterministic)})
    if task == "test":
        configure_test(config, work_dir=config.work_dir)
    try:
        DansegRunner.from_cfg(config)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == found
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def test_the_network_is_found_inside_its_wrappers(tiny):
    config = tiny()
    configure_test(config, work_dir=config.work_dir, tta=True)
    runner = DansegRunner.from_cfg(config)
    assert type(runner.model).__name__ == "LeanTTAModel"
    assert type(runner.network).__name__ == config.model.module.type


def test_processes_do_not_wrap_a_network_without_parameters(monkeypatch):
    """PyTorch's wrapper for several processes refuses one, such as an exported network."""
    runner = DansegRunner.__new__(DansegRunner)
    runner._distributed = True
    network = torch.nn.Identity()
    assert runner.wrap_model(None, network) is network
    wrapped = []
    monkeypatch.setattr("danseg.engine.runner.MMDistributedDataParallel", lambda **how: wrapped.append(how))
    runner.logger, runner.cfg = logging.getLogger("test"), {}
    runner.wrap_model(None, torch.nn.Linear(1, 1))
    assert len(wrapped) == 1


def test_weights_are_loaded_where_they_fit(built, tmp_path):
    runner = built()
    weights = {f"module.{name}": torch.zeros_like(value) for name, value in runner.model.state_dict().items()}
    other = weights["module.decode_head.conv_seg.bias"] = torch.zeros(7)
    path = str(tmp_path / "part.pth")
    torch.save({"state_dict": weights, "meta": {"config": "raise SystemExit"}}, path)
    runner.load_checkpoint(path)
    state = runner.model.state_dict()
    assert state["decode_head.conv_seg.bias"].shape != other.shape
    assert not state["decode_head.conv_seg.weight"].any() and runner.weights == path
    log = (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()
    assert "(7,) instead of (19,)" in log

    with pytest.raises(UserError, match=r"\(7,\) instead of \(19,\)"):
        runner.load_checkpoint(path, strict=True)
    torch.save({"state_dict": {"nothing": torch.ones(1)}}, path)
    with pytest.raises(UserError, match="no parameter of load_from="):
        runner.load_checkpoint(path)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("change", [lambda v: v / 0, lambda v: v.long(), lambda v: v + 0j, lambda v: [1.0]])
def test_weights_that_no_network_can_use_are_not_loaded(built, tmp_path, strict, change):
    runner = built()
    state = dict(runner.model.state_dict())
    name = "decode_head.conv_seg.bias"
    state[name] = change(state[name])
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=f"a.pth cannot be used, 1 weights .*: {name}"):
        runner.load_checkpoint(str(tmp_path / "a.pth"), strict=strict)


def test_a_checkpoint_that_was_read_is_not_read_again(built, tmp_path):
    runner = built()
    state = {name: torch.zeros_like(value) for name, value in runner.model.state_dict().items()}
    runner.already_read = ("nowhere.pth", {"state_dict": state, "meta": {}})
    with pytest.raises(UserError, match=r"other\.pth does not exist"):
        runner.load_checkpoint(str(tmp_path / "other.pth"))
    runner.already_read = ("nowhere.pth", {"state_dict": state, "meta": {}})
    runner.load_checkpoint("nowhere.pth")
    assert not any(value.any() for value in runner.model.state_dict().values())
    assert runner.already_read is None  # its memory is free


def test_what_is_no_checkpoint_of_a_training_is_not_resumed(built):
    runner = built(resume=True, load_from="a.pth")
    runner.already_read = ("a.pth", {"state_dict": runner.model.state_dict(), "meta": {}})
    with pytest.raises(UserError, match="lacks optimizer, message_hub, epoch, iter: .*load_from"):
        runner.train()


def test_a_write_that_fails_leaves_nothing_and_says_what_to_do(built, tmp_path, monkeypatch):
    runner = built({"train_cfg.max_iters": 2, "default_hooks.checkpoint.interval": 2})
    replace = os.replace

    def full_disk(part, final):
        if str(final).endswith(".pth"):
            raise OSError(28, "No space left on device")
        replace(part, final)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match=r"iter_2\.pth: No space left.*--resume"):
        runner.train()
    assert not list((tmp_path / "work").glob("*.pth")) and not list((tmp_path / "work").glob(".*.part"))


def test_weights_that_are_not_finite_are_not_written(built, tmp_path):
    runner = built()
    with torch.no_grad():
        runner.model.decode_head.conv_seg.bias[0] = float("nan")
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    with pytest.raises(UserError, match=r"1 weights hold NaN.*decode_head\.conv_seg\.bias"):
        runner.save_checkpoint(str(tmp_path), "a.pth")
    assert not (tmp_path / "a.pth").exists()


OF_WORKERS = dict(persistent_workers=True, prefetch_factor=4, timeout=60, multiprocessing_context="fork")


@pytest.mark.parametrize("loader", ["train", "val", "test"])
@pytest.mark.parametrize("source", ["option", "child"])
def test_without_workers_their_arguments_do_not_count(tiny, tmp_path, loader, source):
    base = tmp_path / "base.py"
    base.write_text(f"_base_ = {str(TINY)!r}\n{loader}_dataloader = {dict(num_workers=2, **OF_WORKERS)}\n")
    text = f"{loader}_dataloader = dict(num_workers=0)" if source == "child" else ""
    options = {f"{loader}_dataloader.num_workers": 0} if source == "option" else {}
    config = tiny(options, base=base, text=text)
    init_default_scope("mmseg")
    built = DansegRunner.build_dataloader(config[f"{loader}_dataloader"], seed=0)
    assert (built.num_workers, built.persistent_workers, built.prefetch_factor) == (0, False, None)
    assert len(next(iter(built))["inputs"]) == (2 if loader == "train" else 1)
    of_base = DansegRunner.build_dataloader(tiny(base=base)[f"{loader}_dataloader"], seed=0)
    assert (of_base.num_workers, of_base.persistent_workers, of_base.prefetch_factor) == (2, True, 4)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"recompute": ["backbone.layer1"], "compile": {"backend": "eager"}}, marks=pytest.mark.slow
        ),
        {"model.backbone.with_cp": True},
        {"activation_checkpointing": "backbone.layer1", "recompute": ["backbone"]},
    ],
    ids=lambda options: "+".join(options),
)
def test_a_batch_is_counted_once_however_memory_is_saved(built, options):
    runner = built({"train_cfg.max_iters": 2, "default_hooks.checkpoint.interval": 2, **options})
    runner._val_loop = None
    runner.train()
    counts = {name: int(n) for name, n in runner.network.named_buffers() if name.endswith("batches_tracked")}
    assert counts and set(counts.values()) == {2}, counts


@TRANSFORMS.register_module()
class _GivesAnUnknownId(BaseTransform):
    def transform(self, results):
        results["gt_seg_map"][0, :3] = 77
        return results


def test_a_label_that_a_transform_spoils_is_named(tiny):
    config = tiny()
    config.train_dataloader.dataset.pipeline.insert(-1, dict(type="_GivesAnUnknownId"))
    with pytest.raises(UserError, match=r"_gtFine_labelTrainIds\.png cannot .* ids 77, .*a transform"):
        DansegRunner.from_cfg(config).train()
