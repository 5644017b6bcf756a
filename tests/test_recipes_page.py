"""Every block of docs/recipes.md is run on a tiny network, and does what the page says."""

import copy
import importlib.machinery
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook

from danseg.apis import load_model
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.config.config_file import load_config
from danseg.engine.config.options import configure_training
from danseg.engine.runner import DansegRunner
from danseg.engine.train import train
from danseg.errors import UserError
from danseg.evaluation.metric import ExactIoUMetric

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "engine" / "tiny.py"
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
# A heading, and the block below it.
SECTIONS = [section.partition("\n") for section in PAGE.split("\n## ")[1:]]
RECIPES = {heading: re.split(r"```\w*\n", text)[1] for heading, _, text in SECTIONS}
RATE, LOWEST, POWER = 0.02, 1e-4, 0.9  # of tiny.py

BASE = f"""
_base_ = [{str(TINY)!r}]
data_root = DATA_ROOT
train_cfg = dict(max_iters=LENGTH, val_interval=LENGTH)
param_scheduler = [dict(type="PolyLR", power={POWER}, eta_min={LOWEST}, begin=0, end=LENGTH, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=LENGTH))
train_dataloader = dict(dataset=dict(serialize_data=False))
val_dataloader = dict(dataset=dict(serialize_data=False, indices=1))
test_dataloader = dict(dataset=dict(serialize_data=False, indices=1))
recompute = ["backbone.stem", "backbone.layer1", "backbone.layer2"]
"""


class Lab:
    """A folder with the tiny network under the name that the page's recipes begin from."""

    def __init__(
        self,
        folder: Path,
        data_root: str,
        tool: Callable[[str], ModuleType],
        patch: pytest.MonkeyPatch,
    ) -> None:
        self.folder, self.data_root, self.tool, self.patch = folder, data_root, tool, patch
        self.work = folder / "work_dirs" / "danet_r50_cityscapes"
        self.hooks: list[Hook] = []

    def base(self, length: int = 2, extra: str = "") -> Path:
        path = self.folder / "configs" / "danet_r50_cityscapes.py"
        path.parent.mkdir(exist_ok=True)
        text = BASE.replace("DATA_ROOT", repr(self.data_root)).replace("LENGTH", str(length))
        path.write_text(text + extra)
        return path

    def config(self, recipe: str, length: int = 2, extra: str = "", smaller: Any = ()) -> Any:
        """The config of a recipe; ``smaller`` has numbers in the place of the page's."""
        code = RECIPES[recipe]
        for old, new in dict(smaller).items():
            assert old in code, f"the page does not say {old} any more"
            code = code.replace(old, new)
        # mmengine tells the runs of a process apart by their config's name.
        path = self.base(length, extra).with_name(f"{self.folder.name}_{abs(hash(recipe))}.py")
        path.write_text(code)
        config = load_config(path)
        configure_training(config, work_dir=str(self.work), seed=0)
        return config

    def run(self, config: Any, **options: Any) -> DansegRunner:
        register = DansegRunner.register_hooks

        def with_own(runner: DansegRunner, *args: Any) -> None:
            register(runner, *args)
            for hook in self.hooks:
                runner.register_hook(hook, priority="VERY_HIGH")

        with self.patch.context() as patch:
            patch.setattr(DansegRunner, "register_hooks", with_own)
            return train(config, log=lambda said: None, **options)

    def command(self, line: str, *options: str) -> None:
        """Run a line of the page, ``python tools/NAME.py ...``, with more ``--cfg-options``."""
        python, path, *arguments = shlex.split(line)
        assert python == "python" and (ROOT / path).is_file()
        self.tool(Path(path).stem).main([*arguments, *(["--cfg-options", *options] if options else [])])

    def validated(self) -> list[int]:
        return [one["iteration"] for one in json.loads((self.work / "validations.json").read_text())]

    def scalars(self) -> list[dict]:
        found = sorted(self.work.glob("*/vis_data/scalars.json"))
        return [json.loads(line) for line in found[-1].read_text().splitlines()]


@pytest.fixture
def lab(tmp_path, rendered_root, tool, monkeypatch) -> Lab:
    monkeypatch.chdir(tmp_path)
    # Laying out a config's text takes longer than a training.
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, *args, **kwargs: (text, True))
    return Lab(tmp_path, rendered_root, tool, monkeypatch)


class Weights(Hook):
    """Keeps a copy of all parameters before the first iteration and after each."""

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def before_train(self, runner: Any) -> None:
        self._keep(runner)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        self._keep(runner)

    def _keep(self, runner: Any) -> None:
        self.seen.append(copy.deepcopy(runner.network.state_dict()))


def poly(rate: float, done: int, length: int) -> float:
    """The rate of iteration ``done`` of ``length``, counted from 0; the last one has the lowest."""
    return LOWEST + (rate - LOWEST) * (1 - done / (length - 1)) ** POWER


def averaged_weights(lab: Lab) -> None:
    weights = Weights()
    lab.hooks = [weights]
    lab.run(lab.config("Averaged weights (EMA)", length=3, smaller={"0.001": "0.25"}))
    stored = read_checkpoint(lab.work / "iter_3.pth")
    _, first, *others = weights.seen
    moved = 0.0
    for name, value in first.items():
        if "running" in name or "num_batches" in name:
            continue
        average = value.double()
        for one in others:
            average = 0.75 * average + 0.25 * one[name].double()
        torch.testing.assert_close(stored["state_dict"][name].double(), average, rtol=1e-5, atol=1e-7)
        assert torch.equal(stored["ema_state_dict"][f"module.{name}"], others[-1][name])
        moved = max(moved, (average - others[-1][name]).abs().max().item())
    assert moved > 1e-4, "an average that is the last weights shows nothing"


def early_stopping(lab: Lab) -> None:
    scores = iter([10, 20, *[20.05] * 10])
    lab.patch.setattr(ExactIoUMetric, "compute_metrics", lambda *args: {"mIoU": float(next(scores))})
    text = "train_cfg = dict(max_iters=20, val_interval=1)\n"
    text += "default_hooks = dict(checkpoint=dict(interval=100))\n"
    config = lab.config("Early stopping", 20, text, smaller={"patience=5": "patience=2"})
    lab.run(config)
    # Better at 2; 3 and 4 are not.
    assert [one["iteration"] for one in json.loads((lab.work / "validations.json").read_text())] == [
        1,
        2,
        3,
        4,
    ]
    assert (lab.work / "iter_4.pth").is_file()
    runner = lab.run(
        lab.config("Early stopping", 20, text, smaller={"patience=5": "patience=2"}), resume="auto"
    )
    assert runner.iter == 4, "one that had been stopped stays so"


def validate_early(lab: Lab) -> None:
    config = lab.config("Validate early", 6, smaller={"8000": "3", "1000": "3", "200": "1"})
    lab.patch.setattr(ExactIoUMetric, "compute_metrics", lambda *args: {"mIoU": 1.0})
    lab.run(config)
    assert lab.validated() == [1, 3, 6]


def weights_and_biases(lab: Lab) -> None:
    recipe = "Weights & Biases"
    with pytest.raises(UserError, match="needs the package wandb, which is not installed: pip install wandb"):
        lab.run(lab.config(recipe))
    said: list[tuple] = []
    wandb = ModuleType("wandb")
    wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    vars(wandb).update(
        {
            name: lambda *args, _name=name, **kwargs: said.append((_name, args, kwargs))
            for name in ("init", "define_metric", "log", "finish")
        },
        config=SimpleNamespace(update=lambda *args, **kwargs: said.append(("config", args, kwargs))),
        run=SimpleNamespace(log_code=lambda **kwargs: None),
    )
    lab.patch.setitem(sys.modules, "wandb", wandb)
    lab.run(lab.config(recipe))
    [init] = [kwargs for name, _, kwargs in said if name == "init"]
    assert (init["project"], init["name"]) == ("danseg", "danet_r50")
    assert ("define_metric", ("*",), {"step_metric": "step"}) in said
    logged = [args[0] for name, args, _ in said if name == "log"]
    assert [one["step"] for one in logged] == [1, 2, 2]
    assert [round(one["lr"], 9) for one in logged if "lr" in one] == [RATE, round(poly(RATE, 1, 2), 9)]
    assert "mIoU" in logged[-1] and said[-1][0] == "finish"
    [config] = [args[0] for name, args, _ in said if name == "config"]
    assert config["model"]["decode_head"]["type"] == "DANetHead"


def tensorboard(lab: Lab) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command, show = RECIPES["TensorBoard"].splitlines()
    lab.base()
    lab.command(command)
    assert show.split()[:2] == ["tensorboard", "--logdir"]
    [events] = Path(show.split()[2]).rglob("events.out.tfevents.*")
    curves = EventAccumulator(str(events))
    curves.Reload()
    assert [one.step for one in curves.Scalars("loss")] == [1, 2] and curves.Scalars("mIoU")


def freeze_stages(lab: Lab) -> None:
    weights = Weights()
    lab.hooks = [weights]
    lab.run(lab.config("Freeze stages of the backbone"))
    before, after = weights.seen[0], weights.seen[-1]
    same = {name for name in before if torch.equal(before[name], after[name])}
    frozen = {
        name for name in before if name.startswith(("backbone.stem", "backbone.layer1", "backbone.layer2"))
    }
    assert frozen and frozen <= same
    assert not [name for name in same - frozen if name.endswith("conv1.weight")]


def freeze_a_head(lab: Lab) -> None:
    weights = Weights()
    lab.hooks = [weights]
    recipe = "Freeze a head, or any module"
    lab.run(lab.config(recipe, length=3))
    before, after = weights.seen[0], weights.seen[-1]
    names = {name for name, _ in load_model(lab.base(), None, "cpu").named_parameters()}
    same = {name for name in names if torch.equal(before[name], after[name])}
    frozen = {name for name in names if name.startswith("auxiliary_head")}
    assert len(frozen) > 3 and frozen <= same and "decode_head.conv_seg.weight" not in same
    config = lab.config(recipe)
    config.param_scheduler[0].eta_min = LOWEST
    with pytest.raises(UserError, match="auxiliary_head.lr_mult=0 makes a rate of 0"):
        lab.run(config)


def rates_of(lab: Lab, recipe: str) -> tuple[dict[str, float], str]:
    """The rate of each parameter before the first iteration, and the log."""
    config = lab.config(recipe)
    found = {}

    class Rates(Hook):
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            names = {id(one): name for name, one in runner.network.named_parameters()}
            for group in runner.optim_wrapper.optimizer.param_groups:
                for one in group["params"]:
                    found.setdefault(names[id(one)], group["lr"])

    lab.hooks = [Rates()]
    lab.run(config)
    return found, next(lab.work.glob("*/*.log")).read_text()


def another_rate(lab: Lab) -> None:
    rates, log = rates_of(lab, "Another rate for some modules")
    assert len(rates) > 50
    for name, rate in rates.items():
        assert rate == pytest.approx(RATE * (0.1 if name.startswith("backbone") else 1)), name
    assert "learning rates 0.002 and 0.02" in log or "learning rates 0.02 and 0.002" in log
    config = lab.config("Another rate for some modules")
    keys = config.optim_wrapper.paramwise_cfg.custom_keys
    keys["relative_position"] = keys["backbone"]
    lab.run(config, start_over=True)
    log = sorted(lab.work.glob("*/*.log"))[-1].read_text()
    assert "custom_keys.relative_position is in the name of no parameter, so it changes nothing" in log
    keys["bakbone"] = keys.pop("backbone")
    with pytest.raises(UserError, match="bakbone is in the name of no parameter; did you mean 'backbone'"):
        lab.run(config, start_over=True)


def layer_decay(lab: Lab) -> None:
    rates, _ = rates_of(lab, "A rate for each stage (layer decay)")
    exponent = {"stem": 5, "layer1": 4, "layer2": 3, "layer3": 2, "layer4": 1}
    for name, rate in rates.items():
        part = name.split(".")[1] if name.startswith("backbone") else ""
        assert rate == pytest.approx(RATE * 0.8 ** exponent.get(part, 0)), name
    config = lab.config("Another rate for some modules")
    config.optim_wrapper.update(
        constructor="LearningRateDecayOptimizerConstructor",
        paramwise_cfg=dict(decay_rate=0.9, decay_type="stage_wise", num_layers=6),
    )
    with pytest.raises(UserError, match="has no rates for a ResNetV1c: write them as paramwise_cfg"):
        lab.run(config, start_over=True)


def accumulation(lab: Lab) -> None:
    weights, gradients = Weights(), []

    class Gradients(Hook):
        def before_train(self, runner: Any) -> None:
            runner.network.decode_head.conv_seg.weight.register_hook(
                lambda one: gradients.append(one.clone())
            )

    lab.hooks = [weights, Gradients()]
    checkpoint = "default_hooks = dict(checkpoint=dict(interval=8))\n"
    lab.run(lab.config("Gradients of several iterations in a step", 8, checkpoint))
    of_one = [one["decode_head.conv_seg.weight"] for one in weights.seen]
    assert all(torch.equal(of_one[0], one) for one in of_one[:8]) and len(gradients) == 8
    # The schedule counts iterations: the step is taken with the rate of the eighth.
    expected = of_one[0] - poly(RATE, 7, 8) * sum(gradients)
    torch.testing.assert_close(of_one[8], expected, rtol=1e-4, atol=1e-7)
    assert "a step every 8 iterations, of 8 images" in next(lab.work.glob("*/*.log")).read_text()


def clipping(lab: Lab) -> None:
    weights = Weights()
    lab.hooks = [weights]
    lab.run(lab.config("Clip gradients", smaller={"1.0": "0.01"}))
    names = {name for name, _ in load_model(lab.base(), None, "cpu").named_parameters()}
    step = (
        sum((weights.seen[1][name] - weights.seen[0][name]).double().square().sum() for name in names) ** 0.5
    )
    assert step.item() == pytest.approx(RATE * 0.01, rel=1e-3)
    assert lab.scalars()[0]["grad_norm"] > 0.01


def loss_of(lab: Lab, recipe: str, smaller: Any = ()) -> tuple[float, torch.Tensor, torch.Tensor]:
    """The decode head's loss of some logits, what cross entropy is of each pixel, and the labels."""
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    head = MODELS.build(lab.config(recipe, smaller=smaller).model.decode_head)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 19, 4, 8, generator=generator)
    labels = torch.randint(19, (2, 1, 32, 64), generator=generator)
    labels[:, :, :3] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one)) for one in labels]
    resized = F.interpolate(logits, (32, 64), mode="bilinear", align_corners=False)
    loss = head.loss_by_feat(logits, samples)["loss_ce"].item()
    return loss, resized, labels[:, 0]


def class_weights(lab: Lab) -> None:
    loss, logits, labels = loss_of(lab, "Class weights")
    weight = torch.tensor([1.0] * 11 + [3.0] * 8)
    expected = F.cross_entropy(logits, labels, weight, ignore_index=255).item()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss != pytest.approx(F.cross_entropy(logits, labels, ignore_index=255).item(), rel=1e-3)


def hard_pixels(lab: Lab) -> None:
    loss, logits, labels = loss_of(lab, "Hard pixels (OHEM)", smaller={"100000": "10", "0.7": "0.005"})
    each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    hard = (each > -torch.tensor(0.005).log()) & (labels != 255)
    assert 100 < hard.sum() < hard.numel() / 2
    assert loss == pytest.approx((each * hard).sum().item() / each.numel(), rel=1e-4)


def schedule(lab: Lab) -> None:
    command, options = RECIPES["A longer or shorter schedule"].split(" --cfg-options ")
    path = ROOT / command.split()[2]
    key, value = options.strip().split("=")
    before, config = load_config(path), load_config(path, {key: int(value)})
    assert config.train_cfg.max_iters == config.param_scheduler[0].end == 20000 < before.train_cfg.max_iters
    for interval in (
        lambda one: one.train_cfg.val_interval,
        lambda one: one.default_hooks.checkpoint.interval,
    ):
        assert interval(config) / 20000 == interval(before) / before.train_cfg.max_iters


def mixed_precision(lab: Lab) -> None:
    types = []
    real = F.conv2d

    def conv2d(*args: Any, **kwargs: Any) -> torch.Tensor:
        out = real(*args, **kwargs)
        types.append((args[1].dtype, out.dtype))
        return out

    lab.patch.setattr(F, "conv2d", conv2d)
    lab.base()
    lab.command(RECIPES["Mixed precision"])
    assert (torch.float32, torch.bfloat16) in types  # weights, products
    stored = read_checkpoint(lab.work / "iter_2.pth")["state_dict"]
    assert {one.dtype for one in stored.values() if one.is_floating_point()} == {torch.float32}


def resume_with_another_rate(lab: Lab) -> None:
    lab.base(4, "default_hooks = dict(checkpoint=dict(interval=2))\n")
    # The page's config has the batch its rate belongs to; the tiny one here is made of another.
    command = RECIPES["Resume with another rate"].replace("danet_r18_camvid", "danet_r50_cityscapes")
    lab.command("python tools/train.py configs/danet_r50_cityscapes.py")
    (lab.work / "iter_4.pth").unlink()
    refused = command.replace(" --apply-changes", "")
    with pytest.raises(SystemExit):
        lab.command(refused)
    lab.command(command)
    rates = {one["step"]: one["lr"] for one in lab.scalars() if "lr" in one}
    assert rates == pytest.approx({3: poly(0.005, 2, 4), 4: poly(0.005, 3, 4)})


def augmentation(lab: Lab) -> None:
    path = lab.base()
    weights = lab.folder / "weights.pth"
    torch.save(dict(state_dict=load_model(path, None, "cpu").state_dict(), meta={}), weights)
    views = []
    from danseg.heads import DANetHead

    real = DANetHead.forward
    lab.patch.setattr(
        DANetHead, "forward", lambda self, inputs: views.append(inputs[-1].shape) or real(self, inputs)
    )
    whole = "model.test_cfg={'mode':'whole'}"
    lab.command(RECIPES["Test-time augmentation"].replace("CHECKPOINT", str(weights)), whole)
    assert len(views) == 4 and len(set(views)) == 2, "two scales, each flipped too, of one frame"


def ensemble(lab: Lab) -> None:
    path = lab.base(extra='model = dict(test_cfg=dict(_delete_=True, mode="whole"))\n')
    expected = 0
    picture = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    cv2.imwrite("street.png", picture)
    for seed, name in enumerate(("first.pth", "second.pth")):
        torch.manual_seed(seed)
        model = load_model(path, None, "cpu")
        torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=1.0)
        torch.save(dict(state_dict=model.state_dict(), meta={}), name)
        inputs = model.data_preprocessor(
            dict(inputs=[torch.from_numpy(picture).permute(2, 0, 1)]), training=False
        )["inputs"]
        with torch.no_grad():
            logits = model(inputs, mode="tensor")
        logits = logits[0] if isinstance(logits, (tuple, list)) else logits
        expected = expected + F.interpolate(logits, (64, 128), mode="bilinear").softmax(1)[0] / 2
    names: dict[str, Any] = {}
    exec(RECIPES["An ensemble of several trainings"], names)
    torch.testing.assert_close(names["mean"], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(names["labels"], names["mean"].argmax(0)) and names["labels"].shape == (64, 128)


CHECKS = {
    "Averaged weights (EMA)": averaged_weights,
    "Early stopping": early_stopping,
    "Validate early": validate_early,
    "Weights & Biases": weights_and_biases,
    "TensorBoard": tensorboard,
    "Freeze stages of the backbone": freeze_stages,
    "Freeze a head, or any module": freeze_a_head,
    "Another rate for some modules": another_rate,
    "A rate for each stage (layer decay)": layer_decay,
    "Gradients of several iterations in a step": accumulation,
    "Clip gradients": clipping,
    "Class weights": class_weights,
    "Hard pixels (OHEM)": hard_pixels,
    "A longer or shorter schedule": schedule,
    "Mixed precision": mixed_precision,
    "Resume with another rate": resume_with_another_rate,
    "Test-time augmentation": augmentation,
    "An ensemble of several trainings": ensemble,
}


def test_every_block_of_the_page_is_run():
    assert PAGE.count("```") == 2 * len(RECIPES), "one block a heading"
    assert CHECKS.keys() == RECIPES.keys() == set(re.findall(r"^## (.+)$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe(lab, recipe):
    CHECKS[recipe](lab)
