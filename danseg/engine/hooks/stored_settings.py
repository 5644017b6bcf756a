"""Store in each checkpoint what its training is made with, to compare a resumed training with it."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from danseg.engine.training_settings import KEY, settings_text


@HOOKS.register_module()
class StoredSettingsHook(Hook):
    """Adds what a resumed training has to have in common: :mod:`danseg.engine.training_settings`."""

    _text: str | None = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if "optimizer" in checkpoint:  # training cannot resume from weights alone
            if self._text is None:  # it names every image, which takes a moment
                self._text = settings_text(runner)
            checkpoint[KEY] = self._text
