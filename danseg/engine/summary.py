"""Summarise in a few lines what a run is about to do."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from danseg.datasets.wrappers import named_sets
from danseg.engine.bfloat16_optim_wrapper import BFloat16OptimWrapper
from danseg.engine.config.options import pretrained_source
from danseg.engine.config.own_data import about_data
from danseg.engine.config.total_batch import (
    base_batch_size,
    images_a_step,
    images_an_iteration,
    iterations_a_step,
)
from danseg.engine.sample_seeds import own_dataset
from danseg.engine.tf32 import convolves_in_tf32
from danseg.io.words import counted

if TYPE_CHECKING:
    from danseg.engine.runner import DansegRunner


def summary(runner: "DansegRunner") -> str:
    """Describe a runner before its loop starts: data, network, schedule, devices, seed, results folder."""
    loops = {name: getattr(runner, f"_{name}_loop") for name in ("train", "val", "test")}
    loops = {name: loop for name, loop in loops.items() if isinstance(loop, BaseLoop)}
    training = "train" in loops
    log = Path(runner.log_dir) / f"{runner.timestamp}.log"
    lines = [f"{'Training' if training else 'Evaluation'} of {Path(runner.cfg.filename or 'a config').stem}"]
    lines += [f"  {f'{name} data:':<12} {_data(loop.dataloader)}" for name, loop in loops.items()]
    followed = about_data(runner.cfg)
    lines += ["  from --data, each to be set by --cfg-options NAME=VALUE or in a config:"] if followed else []
    lines += [f"    {line}" for line in followed]
    lines += [f"  network:     {_network(runner)}", f"  weights:     {_weights(runner, training)}"]
    if training:
        lines += [f"  schedule:    {_schedule(runner)}", f"  optimiser:   {_optimiser(runner.optim_wrapper)}"]
        lines += [f"               {note}" for note in _notes_on_batch(runner)]
    lines += [
        f"  devices:     {_devices(runner)}",
        f"  seed:        {runner.seed}{' (deterministic)' if runner.deterministic else ''}",
        f"  results in:  {runner.work_dir}",
        f"  log:         {log} (with environment, hooks and the whole config)",
    ]
    return "\n".join(lines)


def _data(loader: DataLoader) -> str:
    workers = counted(loader.num_workers, "worker")
    sets = named_sets(loader.dataset)
    parts = ", ".join(f"{name} {len(part):,}" for name, part in sets.items())
    kind = type(own_dataset(loader)).__name__
    return f"{_images(loader):,} images of {kind}{f' ({parts})' if parts else ''}, {workers}"


def _images(loader: Any) -> int:
    return len(loader.dataset)


def _network(runner: "DansegRunner") -> str:
    network = runner.network
    parts = [type(getattr(network, "backbone", network)).__name__]
    for key, note in (("neck", ""), ("decode_head", ""), ("auxiliary_head", " (auxiliary)")):
        part = getattr(network, key, None)
        ones = part if isinstance(part, nn.ModuleList) else [part] if part is not None else []
        parts += [f"{type(one).__name__}{note}" for one in ones]
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    size = (
        f"; {millions:.2f} million parameters" if millions else ""
    )  # those of exported ones are in their file
    views = augmented_views(runner.cfg)
    augmented = f", averaged over {len(views)} views (test-time augmentation)" if views else ""
    return f"{', '.join(parts)}{size}{augmented}"


def augmented_views(config: Config) -> list[str]:
    """What test-time augmentation averages over, such as "512x256 flipped"; empty without it.

    A size is the width and height into which the image is fitted; "x0.5" is a ratio of the image's own size.
    """
    if not config.model.get("module"):
        return []
    steps = [step.get("transforms") for step in config.get("tta_pipeline") or ()]
    choices = [one for one in steps if one and isinstance(one[0], (list, tuple))]
    return [
        " ".join(filter(None, map(_view, view))) or "as it is" for one in choices for view in product(*one)
    ]


def _view(step: Any) -> str:
    if not isinstance(step, dict):  # a transform that is built already
        return type(step).__name__
    if step.get("scale_factor"):
        return f"x{step['scale_factor']}"
    if step.get("scale"):
        return "x".join(map(str, step["scale"]))
    return "flipped" if step["type"] == "RandomFlip" and step.get("prob") else ""


def _weights(runner: "DansegRunner", training: bool) -> str:
    if runner.weights:
        resumed = training and runner.iter > 0
        return f"{runner.weights}{f', continued after iteration {runner.iter:,}' if resumed else ''}"
    return pretrained_source(runner.cfg.model) or "random"


def _schedule(runner: "DansegRunner") -> str:
    loop, loader = runner.train_loop, runner.train_dataloader
    batch = images_an_iteration(runner)
    images = counted(batch, "image")
    passes = loop.max_iters * batch / max(1, _images(loader))
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    parts = [f"{loop.max_iters:,} iterations of {images}, {passes:,.1f} times through the data"]
    if isinstance(runner._val_loop, BaseLoop):
        parts.append(f"validation every {loop.val_interval:,} {'epochs' if by_epoch else 'iterations'}")
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            parts.append(f"checkpoint every {hook.interval:,} {'epochs' if hook.by_epoch else 'iterations'}")
    return "; ".join(parts)


def _optimiser(wrapper: OptimWrapper | OptimWrapperDict) -> str:
    if isinstance(wrapper, OptimWrapperDict):
        return "; ".join(f"{name}: {_optimiser(one)}" for name, one in wrapper.items())
    # Before a warm-up lowers them.
    rates = dict.fromkeys(group.get("initial_lr", group["lr"]) for group in wrapper.optimizer.param_groups)
    precision = "float32"
    if isinstance(wrapper, BFloat16OptimWrapper):
        precision = "bfloat16 (mixed precision)"
    elif isinstance(wrapper, AmpOptimWrapper):
        precision = f"{str(wrapper.cast_dtype or torch.float16).removeprefix('torch.')} (mixed precision)"
    told = " and ".join(f"{rate:g}" for rate in list(rates)[:3]) + (", ..." if len(rates) > 3 else "")
    told = f"learning rate{'s' if len(rates) > 1 else ''} {told}"
    return f"{type(wrapper.optimizer).__name__}, {told}, {precision}"


def _notes_on_batch(runner: "DansegRunner") -> Iterator[str]:
    """Say how many images a step sees where that is not one iteration's, and what follows for the rate."""
    settings = runner.auto_scale_lr or {}
    base = base_batch_size(settings)
    several = isinstance(runner.optim_wrapper, OptimWrapperDict)
    for name, wrapper in runner.optim_wrapper.items() if several else [("", runner.optim_wrapper)]:
        start, images = f"{name}: " if name else "", images_a_step(runner, wrapper)
        gathered = iterations_a_step(wrapper)
        if gathered > 1:
            yield f"{start}a step every {gathered} iterations, of {counted(images, 'image')}"
        if base is not None and images != base and settings.get("enable"):
            ratio = f"{images / base:g}"
            yield f"{start}the rate is scaled by {ratio}, from steps of {counted(base, 'image')} to {images}"


def _devices(runner: "DansegRunner") -> str:
    network: Any = runner.network
    device = network.data_preprocessor.device  # an exported network has no parameters
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if convolves_in_tf32() and torch.cuda.get_device_capability(device) >= (8, 0):
            name += "; float32 convolutions in TF32"
    else:
        threads = torch.get_num_threads()
        name = f"{device.type.upper()}, {counted(threads, 'thread')} each"
    return f"{counted(runner.world_size, 'process', 'processes')} on {name}"
