"""A name that a config sets, that nothing reads, and that looks as if something did, is refused."""

from pathlib import Path

import pytest

from danseg.errors import UserError

CITYSCAPES = Path(__file__).parents[3] / "configs" / "danet_r101_cityscapes.py"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data = dict(samples_per_gpu=2)",
            "set train_dataloader, val_dataloader and test_dataloader instead",
        ),
        ("optimizer = dict(lr=1)", "set optim_wrapper.optimizer instead"),
        ("optimizer_config = dict()", "set optim_wrapper instead"),
        ("lr_config = dict(policy='poly')", "set param_scheduler instead"),
        ("runner = dict(type='IterBasedRunner', max_iters=9)", "set train_cfg instead"),
        ("total_epochs = 3", "set train_cfg.max_epochs instead"),
        ("max_epoch = 3", "set train_cfg.max_epochs instead"),
        ("evaluation = dict(interval=3)", "set val_evaluator"),
        ("checkpoint_config = dict(interval=3)", "set default_hooks.checkpoint instead"),
        ("resume_from = 'a.pth'", "set the option --resume instead"),
        ("seed = 3", "set randomness.seed instead"),
        ("train_dataloder = dict(batch_size=3)", "did you mean 'train_dataloader'"),
        ("custom_hook = []", "did you mean 'custom_hooks'"),
        ("crop_sizes = (3, 3)", "did you mean 'crop_size'"),
        ("max_iter = 3", "set train_cfg.max_iters instead"),
        ("batch_size = 4", "set train_dataloader.batch_size or"),
        ("lr = 0.1", "set optim_wrapper.optimizer.lr instead"),
    ],
)
def test_a_name_that_nothing_reads_is_refused(child, text, message):
    name = text.split(" =")[0]
    for texts in ((text,), (text, "work_dir = 'w'")):
        with pytest.raises(UserError, match=rf"child_0\.py sets {name}, which nothing reads.*{message}"):
            child(CITYSCAPES, *texts)


@pytest.mark.parametrize(
    "text",
    [
        "author = 'me'",
        "name = 'a run'",
        "batch_size = 4\ntrain_dataloader = dict(batch_size=batch_size)",
        "optimizer = dict(type='AdamW', lr=1e-4)\noptim_wrapper = dict(optimizer=optimizer)",
        "lr = 0.1\noptim_wrapper = dict(optimizer=dict(lr=2 * lr))",
        "import math\ndef half(x):\n    return x / 2\n_seed = 3",
    ],
)
def test_a_variable_of_a_config_is_its_own(child, text):
    assert child(CITYSCAPES, text).model.decode_head.type == "DANetHead"


def test_a_variable_may_serve_a_child(child):
    config = child(CITYSCAPES, "batch_size = 4", "train_dataloader = dict(batch_size=_base_.batch_size)")
    assert config.train_dataloader.batch_size == 4
