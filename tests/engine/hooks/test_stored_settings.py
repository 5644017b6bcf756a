"""Checkpoints that a training can continue from hold what it was made with."""

from collections import Counter

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


def test_functions_of_schedules_are_left_out():
    one = {"last_step": 3, "anneal": len, "phases": [{"end": 2, "f": print}], "steps": Counter([2])}
    plain = {"last_step": 3, "phases": [{"end": 2}], "steps": Counter([2])}
    for states, stored in (([one], [plain]), ({"a": [one], "b": []}, {"a": [plain], "b": []})):
        checkpoint = {"param_schedulers": states}
        StoredSettingsHook().before_save_checkpoint("runner", checkpoint)
        assert checkpoint == {"param_schedulers": stored} and one["anneal"] is len
