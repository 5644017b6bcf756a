"""Run one training: check config and data, find the checkpoint to continue from, train, list the results."""

import os
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from danseg.engine.config.agreement import check_agreement
from danseg.engine.config.options import add_tensorboard, continue_from, keep_checkpoints
from danseg.engine.data import check_data
from danseg.engine.distributed import on_every_rank, on_rank_zero
from danseg.engine.hooks.validation_scores import VALIDATION
from danseg.engine.resuming import loaded, resumed
from danseg.engine.runner import DansegRunner
from danseg.errors import UserError
from danseg.io.files import make_folder


def train(
    config: Config,
    *,
    resume: str | None = None,
    apply_changes: bool = False,
    log: Callable[[str], None] = print,
) -> DansegRunner:
    """Check config and data, train, and say where the results are.

    Args:
        config: a complete config, as from :func:`danseg.engine.config.options.configure_training`.
        resume: "auto" to continue from the newest readable checkpoint of the work dir, or start anew if
            there is none; a checkpoint file to continue from; None to start anew, unless the config says
            ``resume=True``.
        apply_changes: continue with this config's settings where the checkpoint was trained with others,
            such as another rate, optimiser, schedule or data set. False: refuse that.
        log: where messages go before the runner's logger exists. The logger later repeats them in its file.

    Returns:
        The runner, after training.

    Raises:
        UserError: any problem that the user can fix.
    """
    # Files that the config names (pretrained weights) must not run code from their pickles either.
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    runner = _runner(config, resume, apply_changes, log)
    runner.train()
    if is_main_process():
        runner.logger.info(results(runner))
    return runner


def _runner(
    config: Config, resume: str | None, apply_changes: bool, log: Callable[[str], None]
) -> DansegRunner:
    """Do everything before the first iteration. Only the runner keeps the checkpoint, so it can free it."""
    said: list[str] = []

    def say(message: str | None) -> None:
        if message and is_main_process():
            said.append(message)
            log(message)

    if resume is None and config.get("resume"):
        resume = config.get("load_from") or "auto"
    on_every_rank(lambda: _check_options(resume, apply_changes))
    for warning in on_every_rank(lambda: check_agreement(config, "train")):
        say(f"warning: {warning}")
    for report in on_rank_zero(lambda: check_data(config, ("train", "val"))) or ():
        say(report)
    add_tensorboard(config)
    say(keep_checkpoints(config))
    on_rank_zero(lambda: make_folder(config.work_dir, "the work dir", "choose --work-dir"))
    if apply_changes and not resume:
        raise UserError(
            "--apply-changes (apply_changes=True) changes a training that is resumed: add --resume"
        )
    read = resumed(config.work_dir, resume, say) if resume else None
    config.resume = False
    if read:
        continue_from(config, *read)
    else:
        read = loaded(config.get("load_from"), say)
    runner = DansegRunner.from_cfg(config)
    runner.already_read, runner.apply_changes = read, apply_changes
    for message in said:
        runner.logger.info(message)
    return runner


def _check_options(resume: str | None, apply_changes: bool) -> None:
    if apply_changes and not resume:
        raise UserError("--apply-changes is for a training that is resumed: add --resume")


def results(runner: DansegRunner) -> str:
    """Say where a finished training has written its checkpoints, logs and pictures."""
    info = runner.message_hub.runtime_info
    log_dir = Path(runner.work_dir) / runner.timestamp
    lines = ["Training finished."]
    lines += [f"  best checkpoint: {text}" for text in _best_checkpoints(runner)]
    if info.get("last_ckpt"):
        lines.append(f"  last checkpoint: {info['last_ckpt']}")
    lines.append(f"  log:             {log_dir / (runner.timestamp + '.log')}")
    if (log_dir / VALIDATION).is_file():
        lines.append(f"  scores:          {log_dir / VALIDATION} (the last validation, with every class)")
    curves = sorted((log_dir / "vis_data").glob("*.json"))
    scalars = [path for path in curves if path.name == f"{runner.timestamp}.json"] or curves
    if scalars:
        lines.append(f"  scalars:         {scalars[0]} (one JSON object a line)")
    if list((log_dir / "vis_data").glob("events.out.tfevents.*")):
        lines.append(f"  curves:          tensorboard --logdir {log_dir / 'vis_data'}")
    if (log_dir / "vis_data" / "vis_image").is_dir():
        lines.append(f"  pictures:        {log_dir / 'vis_data' / 'vis_image'}")
    return "\n".join(lines)


def _best_checkpoints(runner: DansegRunner) -> list[str]:
    """The file of the best checkpoint of each metric that ``save_best`` names, with its score."""
    info = runner.message_hub.runtime_info
    found = []
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or not hook.save_best:
            continue
        for key, rule in zip(hook.key_indicators, hook.rules, strict=True):
            suffix = "" if len(hook.key_indicators) == 1 else f"_{key}"
            if info.get(f"best_ckpt{suffix}") and key != "auto":  # "auto": not one validation was made
                least = "lowest " if rule == "less" else ""
                score = info[f"best_score{suffix}"]
                found.append(f"{info[f'best_ckpt{suffix}']} ({least}{key} {score:.4g})")
    return found
