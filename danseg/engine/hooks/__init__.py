"""Hooks of training and testing, one file per hook. Importing this package registers them."""

from danseg.engine.hooks.merge_batch_norm import MergeBatchNormHook
from danseg.engine.hooks.non_finite_loss import NonFiniteLossHook
from danseg.engine.hooks.random_state import RandomStateHook
from danseg.engine.hooks.safe_checkpoint import SafeCheckpointHook
from danseg.engine.hooks.safe_early_stopping import SafeEarlyStoppingHook
from danseg.engine.hooks.save_comparison import SaveComparison
from danseg.engine.hooks.show_attention import ShowAttention
from danseg.engine.hooks.stop_signals import StopSignalsHook
from danseg.engine.hooks.stored_settings import StoredSettingsHook
from danseg.engine.hooks.validation_scores import ValidationScoresHook

__all__ = [
    "MergeBatchNormHook",
    "NonFiniteLossHook",
    "RandomStateHook",
    "SafeCheckpointHook",
    "SafeEarlyStoppingHook",
    "SaveComparison",
    "ShowAttention",
    "StopSignalsHook",
    "StoredSettingsHook",
    "ValidationScoresHook",
]
