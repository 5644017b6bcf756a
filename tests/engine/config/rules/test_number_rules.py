"""Numbers out of range, each with its place; those at the ends of the ranges pass."""

import pytest

from broken_config import messages, only_names

LOADER, OPTIMISER, HOOK = "train_dataloader", "optim_wrapper.optimizer", "default_hooks.checkpoint"


@pytest.mark.parametrize(
    ("place", "values"),
    [
        (f"{LOADER}.batch_size", [0, -1, 1.5, None]),
        (f"{LOADER}.num_workers", [-1, 0.5]),
        ("train_cfg.val_interval", [0, -1, 0.5]),
        ("optim_wrapper.accumulative_counts", [0, 1.5]),
        ("randomness", [{"seed": -1}, {"seed": 2**32}, {"seed": 1.5}, {"seed": "x"}]),
        (f"{OPTIMISER}.lr", [-1, float("nan"), float("inf")]),
        (f"{OPTIMISER}.momentum", [-0.1, 1, 2]),
        (f"{OPTIMISER}.weight_decay", [-1e-9]),
        (f"{HOOK}.priority", [-1, 101, "x", []]),
    ],
)
def test_a_number_out_of_range(place, values):
    for value in values:
        only_names(messages({place: value}), "randomness.seed" if place == "randomness" else place)


@pytest.mark.parametrize(
    "options",
    [
        {f"{LOADER}.num_workers": 0, f"{OPTIMISER}.lr": 0, f"{OPTIMISER}.weight_decay": 0},
        {"randomness": {"seed": 2**32 - 1}, f"{OPTIMISER}.momentum": 0},
        {"randomness": {"seed": None}, f"{HOOK}.priority": 100},
        {"randomness": None, f"{HOOK}.priority": "very_low"},
    ],
    ids=str,
)
def test_a_number_within_it(options):
    assert messages(options) == []
