"""Store in each checkpoint what a training is resumed with, in types that are read without running code."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from danseg.engine.training_settings import KEY, settings_text


@HOOKS.register_module()
class StoredSettingsHook(Hook):
    """Adds what a resumed training has to have in common: :mod:`danseg.engine.training_settings`.

    It takes functions out of the states of schedules, as that of ``OneCycleLR`` has one. A checkpoint that
    holds a function is refused when it is read, and the schedule of a resumed training has its own.
    """

    _text: str | None = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if "optimizer" in checkpoint:  # training cannot resume from weights alone
            if self._text is None:  # it names every image, which takes a moment
                self._text = settings_text(runner)
            checkpoint[KEY] = self._text
        if "param_schedulers" in checkpoint:
            checkpoint["param_schedulers"] = _without_functions(checkpoint["param_schedulers"])


def _without_functions(states: Any) -> Any:
    if isinstance(states, dict):
        return {key: _without_functions(one) for key, one in states.items() if not callable(one)}
    return [_without_functions(one) for one in states] if isinstance(states, list) else states
