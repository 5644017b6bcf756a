"""Checkpoints that a training can continue from hold what it was made with."""

from danseg.engine.hooks import stored_settings
from danseg.engine.hooks.stored_settings import StoredSettingsHook


def test_settings_are_stored_with_an_optimiser_and_made_once(monkeypatch):
    made = []
    monkeypatch.setattr(stored_settings, "settings_text", lambda runner: made.append(runner) or "{}")
    hook, whole, weights = StoredSettingsHook(), {"optimizer": {}}, {"state_dict": {}}
    for checkpoint in (whole, weights, {"optimizer": {}}):
        hook.before_save_checkpoint("runner", checkpoint)
    assert whole == {"optimizer": {}, "trained_with": "{}"} and weights == {"state_dict": {}}
    assert made == ["runner"]
