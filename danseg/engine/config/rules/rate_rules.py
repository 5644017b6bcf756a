"""Rates of an optimiser's groups of parameters against the lowest rate of a schedule."""

from collections.abc import Iterator

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin

from danseg.engine.config.config_parts import as_dict
from danseg.engine.config.rules.run import Run, is_a
from danseg.engine.config.signatures import argument
from danseg.engine.numbers import is_number


def raised_groups(run: Run) -> Iterator[str]:
    """A module's own rate below ``eta_min``, to which every schedule brings every rate: it would rise.

    A rate of 0 freezes nothing then.
    """
    rate = _rate(run)
    paramwise = as_dict(as_dict(run.config.get("optim_wrapper")).get("paramwise_cfg"))
    factors = {
        f"custom_keys.{name}.lr_mult": as_dict(one).get("lr_mult")
        for name, one in as_dict(paramwise.get("custom_keys")).items()
    }
    factors["bias_lr_mult"] = paramwise.get("bias_lr_mult")
    for name, factor in factors.items():
        if rate is None or not is_number(factor):
            continue
        for place, eta_min in _lowest(run):
            if rate * factor < eta_min:
                yield (
                    f"optim_wrapper.paramwise_cfg.{name}={factor} makes a rate of {rate * factor:g}, which "
                    f"{place}={eta_min:g} would raise to that: set {place} to {rate * factor:g} or less"
                )


def raised_rate(run: Run) -> Iterator[str]:
    """A warning: the rate itself is below ``eta_min``."""
    rate = _rate(run)
    for place, eta_min in _lowest(run):
        if rate is not None and rate < eta_min:
            yield (
                f"optim_wrapper.optimizer.lr={rate:g} is below {place}={eta_min:g}: the rate would rise to "
                f"that; set {place} below the rate"
            )


def _rate(run: Run) -> float | None:
    if run.task != "train":
        return None
    rate = as_dict(as_dict(run.config.get("optim_wrapper")).get("optimizer")).get("lr")
    return rate if is_number(rate) else None


def _lowest(run: Run) -> Iterator[tuple[str, float]]:
    """Place and value of every ``eta_min`` of a schedule of the rate."""
    for scheduler in run.schedulers():
        eta_min = argument(scheduler, "eta_min")
        if is_a(scheduler, LRSchedulerMixin) and is_number(eta_min):
            yield f"{scheduler.place}.eta_min", eta_min


DISAGREEMENTS = (raised_groups,)
WARNINGS = (raised_rate,)
