"""Run one training: check config and data, find the checkpoint to continue from, train, list the results."""

from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from danseg.engine.config.agreement import check_agreement
from danseg.engine.config.options import add_tensorboard, continue_from, count_when_resumed, keep_checkpoints
from danseg.engine.data import check_data
from danseg.engine.distributed import decided_on_rank_zero, on_every_rank, on_rank_zero
from danseg.engine.hooks.validation_scores import VALIDATION
from danseg.engine.received_signals import receiving
from danseg.engine.restarts import note_launch, restarted_by
from danseg.engine.resuming import loaded, resumed
from danseg.engine.run_lock import sole_run
from danseg.engine.runner import DansegRunner
from danseg.engine.validation_record import RECORD
from danseg.engine.work_dir import checkpoint_folders, prepare_folders
from danseg.errors import UserError


def train(
    config: Config,
    *,
    resume: str | None = None,
    start_over: bool = False,
    apply_changes: bool = False,
    log: Callable[[str], None] = print,
) -> DansegRunner:
    """Check config and data, train, and say where the results are.

    During the training its work dir is locked.

    Args:
        config: a complete config, as from :func:`danseg.engine.config.options.configure_training`.
        resume: "auto" to continue from the newest readable checkpoint of the work dir, or start anew if
            there is none; a checkpoint file to continue from; None to start anew, unless the config says
            ``resume=True`` or a launcher has started a training again that had ended. A work dir that holds
            checkpoints is refused then.
        start_over: move what an earlier training has left in the work dir to a folder in it, and start anew.
        apply_changes: continue with this config's settings where the checkpoint was trained with others,
            such as another rate, optimiser, schedule or data set. False: refuse that.
        log: where messages go before the runner's logger exists. The logger later repeats them in its file.

    Returns:
        The runner, after training.

    Raises:
        UserError: any problem that the user can fix.
        Stopped: a signal has ended the training.
    """
    said: list[str] = []

    def say(message: str | None) -> None:
        if message and is_main_process():
            said.append(message)
            log(message)

    with receiving():
        resume = on_every_rank(lambda: _chosen(config, resume, start_over, apply_changes))
        _check(config, say)
        with sole_run(checkpoint_folders(config), say):
            runner = _runner(config, resume, start_over, say)
            runner.apply_changes = apply_changes
            for message in said:
                runner.logger.info(message)
            runner.train()
            if is_main_process():
                runner.logger.info(results(runner))
    return runner


def _chosen(config: Config, resume: str | None, start_over: bool, apply_changes: bool) -> str | None:
    """What to continue from, by the argument or else by the config."""
    if resume is None and config.get("resume"):
        resume = config.get("load_from") or "auto"
    if resume and start_over:
        raise UserError("--start-over and --resume (or resume=True in the config) exclude each other")
    if apply_changes and not resume:
        raise UserError("--apply-changes is for a training that is resumed: add --resume")
    return resume


def _check(config: Config, say: Callable[[str | None], None]) -> None:
    """Check and complete the config, and check the data."""
    for warning in on_every_rank(lambda: check_agreement(config, "train")):
        say(f"warning: {warning}")
    for report in on_rank_zero(lambda: check_data(config, ("train", "val"))) or ():
        say(report)
    add_tensorboard(config)
    count_when_resumed(config)
    say(keep_checkpoints(config))


def _runner(
    config: Config, resume: str | None, start_over: bool, say: Callable[[str | None], None]
) -> DansegRunner:
    """Do the rest before the first iteration. Only the runner keeps the checkpoint, so it can free it."""
    found, launcher = None, decided_on_rank_zero(lambda: restarted_by(config.work_dir))
    if launcher:  # what was asked for is what its first start did
        say(f"{launcher} has started this training again: it goes on from its newest checkpoint")
        found = resumed(config.work_dir, "auto", say)
    if found is None and resume:
        found = resumed(config.work_dir, resume, say)
    config.resume = False
    if found:
        continue_from(config, *found)
    read = found or loaded(config.get("load_from"), say)  # before it may be moved

    def take_over() -> None:
        prepare_folders(config, found, say, refuse=not (launcher or resume or start_over))
        note_launch(config.work_dir)

    on_rank_zero(take_over)
    runner = DansegRunner.from_cfg(config)
    runner.already_read = read
    return runner


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
    if (Path(runner.work_dir) / RECORD).is_file():
        lines.append(f"  validations:     {Path(runner.work_dir) / RECORD} (the scores of all)")
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
            path = info.get(f"best_ckpt{suffix}")  # none for "auto": not one validation was made
            if path and (Path(path).is_file() or "://" in path):
                least = "lowest " if rule == "less" else ""
                found.append(f"{path} ({least}{key} {info[f'best_score{suffix}']:.4g})")
    return found
