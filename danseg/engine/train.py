"""One training from a config: options applied, data checked, run, and what it left behind."""

import importlib.util
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from danseg.engine.checkpoint import find_resumable, read_checkpoint
from danseg.engine.data import check_data
from danseg.engine.distributed import on_rank_zero
from danseg.engine.runner import DansegRunner, drop_pretrained
from danseg.engine.work_dir import make_work_dir
from danseg.errors import UserError


def train(config: Config, *, resume: str | None = None, log=print) -> DansegRunner:
    """Check the data, train, and say where the results are.

    Args:
        config: complete, with ``work_dir``.
        resume: None to start; "auto" to continue from the newest readable checkpoint of the work
            dir (and to start where there is none); otherwise a checkpoint file to continue from.
        log: where messages go before the runner's logger exists.

    Returns:
        The runner, after training.

    Raises:
        UserError: whatever the user can put right.
    """
    for report in on_rank_zero(lambda: check_data(config, ("train", "val"))) or ():
        log(report)
    add_tensorboard(config)
    on_rank_zero(lambda: make_work_dir(config.work_dir))
    on_rank_zero(lambda: _check_resume(config, resume, log))
    _apply_resume(config, resume)
    # Pickles in files named by the config (pretrained weights) are data here, too.
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    if (config.get("randomness") or {}).get("deterministic"):
        # Or PyTorch refuses cuBLAS's products; one of the two settings that NVIDIA calls reproducible.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    runner = DansegRunner.from_cfg(config)
    runner.logger.info(f"seed: {runner.seed}" + (" (deterministic)" if runner.deterministic else ""))
    runner.train()
    if is_main_process():
        runner.logger.info(results(runner))
    return runner


def _check_resume(config: Config, resume: str | None, log) -> None:
    """Fail early, and on one rank, over a checkpoint that cannot be resumed from."""
    if resume == "auto":
        find_resumable(config.work_dir, log)
    elif resume is not None:
        if "optimizer" not in read_checkpoint(resume):
            raise UserError(
                f"{resume} holds weights without the optimizer's state, so it cannot be resumed from; "
                f"to start from its weights use --cfg-options load_from={resume}"
            )


def _apply_resume(config: Config, resume: str | None) -> None:
    """Point the config to the checkpoint to continue from, and take its seed unless one is given."""
    path = find_resumable(config.work_dir, lambda message: None) if resume == "auto" else resume
    config.resume = path is not None
    if path is None:
        return
    config.load_from = str(path)
    drop_pretrained(config.model)
    seed = (read_checkpoint(path).get("meta") or {}).get("seed")
    randomness = config.get("randomness") or {}
    if randomness.get("seed") is None and seed is not None:
        # The order of the images follows from the seed: it must be known before the loaders are built.
        config.randomness = {**randomness, "seed": seed}


def add_tensorboard(config: Config) -> None:
    """Write curves for TensorBoard as well, where it is installed; JSON lines are written always."""
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


def results(runner: DansegRunner) -> str:
    """Where a finished training left its checkpoints, logs and pictures."""
    info = runner.message_hub.runtime_info
    log_dir = Path(runner.work_dir) / runner.timestamp
    lines = ["Training finished."]
    if info.get("best_ckpt"):
        lines.append(f"  best checkpoint: {info['best_ckpt']} (mIoU {info['best_score']:.2f})")
    if info.get("last_ckpt"):
        lines.append(f"  last checkpoint: {info['last_ckpt']}")
    lines.append(f"  log:             {log_dir / (runner.timestamp + '.log')}")
    curves = sorted((log_dir / "vis_data").glob("*.json"))
    scalars = [path for path in curves if path.name == f"{runner.timestamp}.json"] or curves
    if scalars:
        lines.append(f"  scalars:         {scalars[0]} (one JSON object a line)")
    if list((log_dir / "vis_data").glob("events.out.tfevents.*")):
        lines.append(f"  curves:          tensorboard --logdir {log_dir / 'vis_data'}")
    if (log_dir / "vis_data" / "vis_image").is_dir():
        lines.append(f"  pictures:        {log_dir / 'vis_data' / 'vis_image'}")
    return "\n".join(lines)
