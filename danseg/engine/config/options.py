"""Change a config between reading it and running it: the tools' options, and what every run adds.

First, :mod:`danseg.engine.config.config_file` reads the file and merges ``--cfg-options`` into it. All later
changes are made here. Every function changes the config in place.
"""

import copy
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook, EarlyStoppingHook

from danseg.datasets.wrappers import inner_configs
from danseg.engine.config.total_batch import base_batch_size
from danseg.engine.config.type_names import loads_labels, type_name
from danseg.errors import UserError


def configure_training(
    config: Config,
    *,
    launcher: str = "none",
    work_dir: str | None = None,
    seed: int | None = None,
    deterministic: bool = False,
    amp: str | None = None,
    auto_scale_lr: bool = False,
    show_attention: int | None = None,
) -> None:
    """Apply the options of ``tools/train.py``.

    Args:
        config: the config as it was read.
        launcher: what started the processes; "none" means one process.
        work_dir: folder for checkpoints and logs. Default: the config's, or else ``work_dirs/<config>``.
        seed: seed of all random numbers. Default: the config's, or else a random one.
        deterministic: use algorithms only that repeat to the bit; on a GPU an operation that has none is
            refused by PyTorch, and the runner sets ``CUBLAS_WORKSPACE_CONFIG`` unless it is set.
        amp: mixed precision, see :func:`use_mixed_precision`.
        auto_scale_lr: scale the learning rate to the actual total batch size.
        show_attention: of so many pictures, draw prediction and attention at every validation.

    Raises:
        UserError: an option does not fit the config.
    """
    choose_work_dir(config, work_dir)
    config.launcher = launcher
    randomness = dict(config.get("randomness") or {"seed": None})
    if seed is not None:
        randomness["seed"] = seed
    if deterministic:
        randomness["deterministic"] = True
    config.randomness = randomness
    if amp:
        use_mixed_precision(config, amp)
    base_batch_size(config.get("auto_scale_lr"), needed=auto_scale_lr)  # before anything is built
    if auto_scale_lr:
        config.auto_scale_lr.enable = True
    if show_attention is not None:
        _show_attention(config, show_attention)


def _show_attention(config: Config, pictures: int) -> None:
    if not config.get("val_dataloader"):
        raise UserError(
            f"--show-attention draws at validations, and config {config.filename} has no val_dataloader"
        )

    def is_own(hook: Any) -> bool:
        return isinstance(hook, Mapping) and type_name(hook) == "ShowAttention"

    hooks = list(config.get("custom_hooks") or [])
    if not any(map(is_own, hooks)):
        hooks.append({"type": "ShowAttention"})
    config.custom_hooks = [{**one, "pictures": pictures} if is_own(one) else one for one in hooks]


def configure_test(
    config: Config,
    *,
    launcher: str = "none",
    work_dir: str | None = None,
    tta: bool = False,
    out: str | None = None,
    show_dir: str | None = None,
    format_only: bool = False,
) -> None:
    """Apply the options of ``tools/test.py``: turn a training config into a config for one evaluation.

    Args:
        config: the config as it was read.
        launcher: what started the processes; "none" means one process.
        work_dir: folder for the log and the scores. Default: the config's, or else ``work_dirs/<config>``.
        tta: average the predictions over the config's ``tta_pipeline`` (scales and flips).
        out: folder for predictions, one PNG of ids per image, in the evaluator's ``output_format``.
        show_dir: folder for pictures, one per image: image, truth, prediction.
        format_only: write predictions without reading labels; needs ``out``.

    Raises:
        UserError: the options do not fit each other or the config.
    """
    choose_work_dir(config, work_dir)
    config.launcher = launcher
    for key in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr"):
        config[key] = None
    for key in ("val_dataloader", "val_cfg", "val_evaluator", "load_from"):
        config[key] = None
    config.resume = False
    for key in ("test_dataloader", "test_evaluator"):
        if not config.get(key):
            raise UserError(f"config {config.filename} has no {key}, so there is nothing to test on")
    config.test_cfg = config.get("test_cfg") or {"type": "TestLoop"}
    require_model(config)
    drop_pretrained(config.model)
    if tta:
        _use_tta(config)
    if format_only and not out:
        raise UserError("--format-only writes predictions and computes no scores: name a folder with --out")
    if out or format_only:
        evaluators = config.test_evaluator
        evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
        writers = [one for one in evaluators if one.get("type") in ("ExactIoUMetric", "IoUMetric")]
        if not writers:
            kinds = ", ".join(str(one.get("type")) for one in evaluators)
            raise UserError(f"--out: test_evaluator ({kinds}) writes no predictions; use ExactIoUMetric")
        writers[0].update(output_dir=out, format_only=format_only)
        if format_only:
            config.test_evaluator = writers[0]
            for dataset in inner_configs(config.test_dataloader.dataset):
                _without_labels(dataset)
    if show_dir:
        hooks = config.get("custom_hooks") or []
        config.custom_hooks = [*hooks, {"type": "SaveComparison", "out_dir": show_dir}]


def _use_tta(config: Config) -> None:
    wrapper = tta_wrapper(config)
    for dataset in inner_configs(config.test_dataloader.dataset):
        dataset["pipeline"] = config.tta_pipeline
    config.model = {**wrapper, "module": config.model}


def tta_wrapper(config: Config) -> dict[str, Any]:
    """What a config says of the model that averages over the views of its ``tta_pipeline``.

    Raises:
        UserError: it says nothing of the one or the other.
    """
    missing = [key for key in ("tta_model", "tta_pipeline") if not config.get(key)]
    if missing:
        raise UserError(f"--tta: config {config.filename} has no {' and no '.join(missing)}")
    wrapper = dict(config.tta_model)
    if type_name(wrapper) == "SegTTAModel":
        wrapper["type"] = "LeanTTAModel"  # the same labels, and right ones for a head with one channel
    return wrapper


def without_labels(transforms: Any) -> Any:
    """A pipeline without the loading of labels, also inside test-time augmentation; it stays as it was."""
    if isinstance(transforms, (list, tuple)):
        kept = [without_labels(one) for one in transforms]
        return [one for one in kept if one is not None and one != []]
    if isinstance(transforms, dict):
        if loads_labels(transforms):
            return None
        if "transforms" in transforms:
            transforms = copy.copy(transforms)
            transforms["transforms"] = without_labels(transforms["transforms"])
    return transforms


def _without_labels(dataset: dict) -> None:
    """Remove the loading of labels from a data set's pipeline."""
    dataset["pipeline"] = without_labels(dataset["pipeline"])
    dataset["test_mode"] = True


def choose_work_dir(config: Config, asked: str | None) -> None:
    """Set the work dir to ``asked`` if given, else keep the config's, else use ``work_dirs/<config>``."""
    folder = asked or config.get("work_dir")
    if folder is None and config.filename is None:
        raise UserError("a config that was not read from a file has no name for its work dir: set work_dir")
    config.work_dir = folder or f"work_dirs/{Path(config.filename).stem}"


def use_mixed_precision(config: Config, dtype: str) -> None:
    """Make the config's optimiser wrapper train in ``dtype``.

    Args:
        config: changed in place.
        dtype: "float16", "bfloat16", or "auto": float16 on CUDA, bfloat16 on CPU.

    Raises:
        UserError: float16 is asked for on CPU, or this type of optimiser wrapper cannot be replaced.
    """
    device = get_device()
    if dtype == "auto":
        dtype = "float16" if device == "cuda" else "bfloat16"
    if dtype == "float16" and device == "cpu":
        raise UserError("--amp float16 needs a GPU; on CPU use --amp bfloat16")
    wrapper = config.optim_wrapper
    kind = wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper", "BFloat16OptimWrapper"):
        raise UserError(f"--amp cannot change optim_wrapper.type={kind!r}; it replaces 'OptimWrapper'")
    for key in ("dtype", "loss_scale"):
        wrapper.pop(key, None)
    if dtype == "bfloat16":
        wrapper["type"] = "BFloat16OptimWrapper"
    else:
        wrapper.update(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic")


def add_tensorboard(config: Config) -> None:
    """Also write curves for TensorBoard if it is installed; JSON lines are always written."""
    visualizer = config.get("visualizer")
    if not visualizer:
        return
    backends = list(visualizer.get("vis_backends") or [])
    kinds = {backend["type"] for backend in backends}
    if "LocalVisBackend" not in kinds:
        backends.append({"type": "LocalVisBackend"})
    if "TensorboardVisBackend" not in kinds and importlib.util.find_spec("tensorboard") is not None:
        backends.append({"type": "TensorboardVisBackend"})
    visualizer["vis_backends"] = backends


def count_when_resumed(config: Config) -> None:
    """Let mmengine's early stopping count on when a training is resumed: SafeEarlyStoppingHook does."""
    hooks = [*(config.get("default_hooks") or {}).values(), *(config.get("custom_hooks") or ())]
    for hook in hooks:
        if isinstance(hook, dict) and hook.get("type") in _EARLY_STOPPING_HOOK:
            hook["type"] = "SafeEarlyStoppingHook"


def keep_checkpoints(config: Config) -> str | None:
    """Replace mmengine's CheckpointHook, which deletes an old checkpoint before the new one is complete.

    mmseg's configs name that hook. SafeCheckpointHook replaces it and takes the same arguments. A hook of
    any other type is the user's own and stays.

    Returns:
        A message for the user; None if no hook that the config names was replaced.
    """
    config.default_hooks = config.get("default_hooks") or {}
    hooks = config.default_hooks
    hooks.setdefault("checkpoint", {"type": "SafeCheckpointHook"})
    replaced = [
        hook
        for hook in (*hooks.values(), *(config.get("custom_hooks") or ()))
        if isinstance(hook, dict) and hook.get("type") in _CHECKPOINT_HOOK
    ]
    for hook in replaced:
        hook["type"] = "SafeCheckpointHook"
    if not replaced:
        return None
    return (
        "SafeCheckpointHook takes the place of the config's CheckpointHook, which would delete an old "
        "checkpoint before the new one is whole."
    )


_EARLY_STOPPING_HOOK = ("EarlyStoppingHook", "mmengine.EarlyStoppingHook", EarlyStoppingHook)
_CHECKPOINT_HOOK = ("CheckpointHook", "mmengine.CheckpointHook", CheckpointHook)


def continue_from(config: Config, path: str, checkpoint: Mapping[str, Any]) -> None:
    """Make the config continue from a checkpoint, with the checkpoint's seed unless the config sets one."""
    config.resume = True
    config.load_from = path
    drop_pretrained(config.model)
    seed = (checkpoint.get("meta") or {}).get("seed")
    randomness = config.get("randomness") or {}
    if randomness.get("seed") is None and seed is not None:
        # The order of the images depends on the seed, so it must be known before the loaders are built.
        config.randomness = {**randomness, "seed": seed}


def pretrained_source(model: dict) -> str | None:
    """Where the model gets its pretrained weights from, with the URL of a short name; None if nowhere."""
    backbone = model.get("backbone") or {}
    init = backbone.get("init_cfg")
    from_init = init.get("checkpoint") if isinstance(init, dict) else None
    name = model.get("pretrained") or backbone.get("pretrained") or from_init
    if name is None:
        return None
    if "://" not in str(name):
        return str(name)
    from danseg.engine.checkpoints.downloads import address_of

    try:
        address = address_of(str(name))
    except UserError:  # which is said where it is read
        address = str(name)
    return str(name) if address == str(name) else f"{name} ({address})"


def require_model(config: Config) -> None:
    """Raise a UserError if a config says nothing of a network."""
    if not isinstance(config.get("model"), Mapping):
        raise UserError(f"config {config.filename} has no model, a dict with the type of a segmentor")


def drop_pretrained(model: dict) -> None:
    """Make a model config load no pretrained weights, because a checkpoint will replace them all."""
    for part in (model, model.get("backbone") or {}):
        if part.get("pretrained") is not None:
            part["pretrained"] = None
        if isinstance(part.get("init_cfg"), dict) and part["init_cfg"].get("type") == "Pretrained":
            part["init_cfg"] = None
