"""Decide whether and how a training goes on from a checkpoint, before anything of it is loaded."""

from typing import TYPE_CHECKING, Any

from mmengine.runner import EpochBasedTrainLoop

from danseg.engine.resumed_optimizer import (
    all_rates,
    check_states,
    follow_length,
    span,
    take_over,
    without_moments,
)
from danseg.engine.training_settings import changes_since, refusal
from danseg.errors import UserError
from danseg.io.words import listed

if TYPE_CHECKING:
    from danseg.engine.runner import DansegRunner

# Changes of these parts of a config act on optimisers and rates.
_OF_OPTIMIZERS = ("optim_wrapper", "param_scheduler", "auto_scale_lr", "processes", "train_cfg")


class ResumePlan:
    """What a runner, built and not yet resumed, does with a checkpoint.

    Attributes:
        anew: whether optimisers keep this config's settings and the rates are placed by its schedules,
            because they have changed or the checkpoint holds no schedules. Otherwise mmengine resumes them.

    Raises:
        UserError: the checkpoint is of another training, and changes are not to be applied; it lies beyond
            the end of this one; or its states do not fit.
    """

    def __init__(self, runner: "DansegRunner", checkpoint: dict[str, Any], path: str) -> None:
        self._runner, self._checkpoint, self._path = runner, checkpoint, path
        meta = checkpoint.get("meta") or {}
        needed = {"optimizer": checkpoint, "message_hub": checkpoint, "epoch": meta, "iter": meta}
        lacking = [name for name, part in needed.items() if part.get(name) is None]
        if lacking:
            raise UserError(
                f"{path} cannot be resumed from, it lacks {listed(lacking)}: it was not written by a "
                f"training. To start from its weights use --cfg-options load_from={path}"
            )
        self._changes = changes_since(runner, checkpoint, path)
        if self._changes and not runner.apply_changes:
            raise UserError(refusal(self._changes, path))
        self._check_place(meta["epoch"], meta["iter"])
        rates = all_rates(runner)
        self._without_rates = bool(rates) and checkpoint.get("param_schedulers") is None
        self.anew = self._without_rates or any(
            change.place.startswith(_OF_OPTIMIZERS) for change in self._changes
        )
        if not self.anew:
            check_states(runner, checkpoint, path)
        self._spans = [span(rate) for rate in rates]
        if any(change.place == "randomness.seed" for change in self._changes):
            checkpoint["meta"] = {**meta, "seed": runner.seed}  # mmengine takes it from there

    def _check_place(self, epoch: int, iteration: int) -> None:
        """Check that the checkpoint lies within the training."""
        loop = self._runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        unit, passed, end = (
            ("epochs", epoch, loop.max_epochs) if by_epoch else ("iters", iteration, loop.max_iters)
        )
        if min(epoch, iteration) < 0:
            raise UserError(
                f"{self._path} cannot be resumed from: it says that it is of epoch {epoch} and iteration "
                f"{iteration}; use another file"
            )
        if passed > end:
            raise UserError(
                f"{self._path} was written after {passed} {'epochs' if by_epoch else 'iterations'}, and this "
                f"training ends before, at train_cfg.max_{unit}={end}: raise that, or resume from an earlier "
                "checkpoint"
            )
        if passed == end:
            self._runner.logger.warning(
                f"{self._path} is the end of this training, train_cfg.max_{unit}={end}: nothing is left to "
                f"train. To go on, raise it: --cfg-options train_cfg.max_{unit}=N"
            )

    def finish(self) -> None:
        """Do what mmengine's ``Runner.resume`` leaves: apply changes, or a longer schedule."""
        runner, loop = self._runner, self._runner.train_loop
        notes = []
        if any(change.place == "train_cfg.by_epoch" for change in self._changes):
            by_epoch = isinstance(loop, EpochBasedTrainLoop)
            loop._epoch = loop.iter // len(loop.dataloader) if by_epoch else 0
        if self.anew:
            other = any(change.place.endswith(("optimizer", "optimizer.type")) for change in self._changes)
            notes += take_over(runner, self._checkpoint, anew=other)
        else:
            notes += without_moments(runner, self._checkpoint) if loop.iter else []
            follow_length(runner, self._spans, self._path)
        if self._without_rates:
            notes.append("it holds no schedules, so each rate is what this config's give at this iteration")
        told = [f"  {text}" for text in (*self._changes, *notes)]
        if told:
            runner.logger.warning(f"{self._path} does not go on as it was:\n" + "\n".join(told))
