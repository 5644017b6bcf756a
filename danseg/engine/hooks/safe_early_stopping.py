"""Stop a training whose scores no longer get better, also one that was resumed."""

from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import HOOKS

from danseg.engine.distributed import decided_on_rank_zero
from danseg.engine.hooks.safe_checkpoint import SafeCheckpointHook
from danseg.engine.validation_record import RECORD, read_record
from danseg.errors import UserError


@HOOKS.register_module()
class SafeEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's hook, with its arguments, which also counts what came before a training was resumed.

    mmengine's starts to count anew, because checkpoints do not hold its count: a resumed training ends later.
    Here the scores of ``validations.json`` are counted again. A training that had been stopped stays so. The
    iteration at which it stops gets a checkpoint, as the end of a training does.

    Raises:
        UserError: no validation gives ``monitor``, about which mmengine warns at each of them.
    """

    priority = "NORMAL"  # it has counted again before a missing validation is made up for

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._counted: set[int] = set()
        self._stopped_now = False

    def before_train(self, runner: Any) -> None:
        if runner.iter == 0:
            return
        record = decided_on_rank_zero(lambda: read_record(runner.work_dir))
        for one in record:
            if one["iteration"] <= runner.iter and self.monitor in one:
                score = one[self.monitor]
                self._count(runner, one["iteration"], float("nan") if score is None else score)
        if not self._counted:
            runner.logger.warning(
                f"early stopping counts from iteration {runner.iter}: {runner.work_dir}/{RECORD} has no "
                f"{self.monitor} of earlier validations"
            )

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.monitor not in (metrics or {}):
            raise UserError(
                f"EarlyStoppingHook.monitor={self.monitor!r} is not among the scores of the validation: "
                f"{', '.join(metrics or {})}"
            )
        if metrics and runner.iter not in self._counted:  # a validation may be made again
            self._count(runner, runner.iter, metrics[self.monitor])
            self._stopped_now = runner.train_loop.stop_training

    def after_train(self, runner: Any) -> None:
        reached = {"epoch": runner.epoch, "iter": runner.iter}
        for hook in runner.hooks if self._stopped_now else ():
            if isinstance(hook, SafeCheckpointHook) and hook.save_last:
                hook.save_now(runner, reached)

    def _count(self, runner: Any, iteration: int, score: float) -> None:
        self._counted.add(iteration)
        stops, why = self._check_stop_condition(score)
        if stops and not runner.train_loop.stop_training:
            runner.train_loop.stop_training = True
            runner.logger.info(f"stopped early, after iteration {iteration}: {why.strip()}")
