"""Logs of trainings as curves: starts are joined as the training went, and what cannot be read is named."""

import json
from pathlib import Path

import pytest

from danseg.engine.training_curves import LOSS, RATE, SCORE, read_training
from danseg.errors import UserError


def log(folder: Path, time: str, *entries: dict, end: str = "\n") -> Path:
    path = folder / time / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(json.dumps(one) for one in entries) + end)
    return path


def trained(step: int, loss: float, rate: float = 0.1) -> dict:
    return dict(lr=rate, loss=loss, time=1.0, iter=step, step=step)


def validated(step: int, miou: float) -> dict:
    return {"mIoU": miou, "aAcc": 90.0, "step": step}


def test_a_restart_replaces_what_was_done_again(tmp_path):
    # Killed after 40; its last checkpoint was that of 20. Then killed again before it logged anything.
    log(
        tmp_path,
        "20260101_000000",
        trained(10, 4),
        trained(20, 3),
        validated(20, 50),
        trained(30, 9),
        trained(40, 9),
    )
    log(tmp_path, "20260101_000100", end="")
    log(
        tmp_path,
        "20260101_000200",
        validated(20, 51),
        trained(30, 2),
        trained(40, 1, 0.05),
        validated(40, 60),
    )
    found = read_training(tmp_path)
    assert found.starts == 2
    assert found.curves[LOSS] == [(10, 4), (20, 3), (30, 2), (40, 1)]
    assert found.curves[RATE] == [(10, 0.1), (20, 0.1), (30, 0.1), (40, 0.05)]
    assert found.curves[SCORE] == [(20, 51), (40, 60)]


def test_one_that_was_started_over_has_nothing_of_the_former(tmp_path):
    log(tmp_path, "20260101_000000", *(trained(step, 9) for step in range(10, 100, 10)), validated(90, 70))
    log(tmp_path, "20260102_000000", trained(10, 1))
    found = read_training(tmp_path)
    assert found.curves == {LOSS: [(10, 1)], RATE: [(10, 0.1)], SCORE: []}


def test_the_record_of_validations_wins(tmp_path):
    log(tmp_path, "20260101_000000", trained(10, 4), validated(10, 1))
    record = [{"iteration": 10, "mIoU": 2.5}, {"iteration": 20, "mIoU": 3.5}, {"iteration": 30, "mIoU": None}]
    (tmp_path / "validations.json").write_text(json.dumps(record))
    assert read_training(tmp_path).curves[SCORE] == [(10, 2.5), (20, 3.5)]


def test_validations_of_epochs_stand_at_their_iteration(tmp_path):
    log(tmp_path, "20260101_000000", trained(50, 2), validated(1, 30), trained(100, 1), validated(2, 40))
    assert read_training(tmp_path).curves[SCORE] == [(50, 30), (100, 40)]


def test_a_line_cut_by_a_kill_is_left_out(tmp_path):
    path = log(tmp_path, "20260101_000000", trained(10, 4), trained(20, 3))
    path.write_text(path.read_text() + '{"loss": 2, "st')
    assert read_training(tmp_path).curves[LOSS] == [(10, 4), (20, 3)]
    assert read_training(path.parents[1]).curves[LOSS] == [(10, 4), (20, 3)]  # the folder of one start


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path, root: path.write_text('{"loss": 1\n{"loss": 2, "step": 3}\n'), "line 1"),
        (lambda path, root: path.write_text("[1]\n"), "line 1 is no dict"),
        (lambda path, root: path.write_bytes(b"\xff\xfe\n"), "utf-8"),
        (lambda path, root: path.write_text('{"mIoU": 1, "step": 3}\n'), "holds no log of a training"),
        (lambda path, root: path.unlink(), "holds no log of a training"),
        (lambda path, root: (root / "validations.json").write_text("{"), "validations.json"),
        (lambda path, root: (root / "validations.json").write_text("{}"), "it is no list"),
        (lambda path, root: (root / "validations.json").mkdir(), "it is a folder"),
    ],
)
def test_what_cannot_be_read_is_one_message(spoil, words, tmp_path):
    spoil(log(tmp_path, "20260101_000000", trained(10, 4)), tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        read_training(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        read_training(tmp_path / "nowhere")


@pytest.mark.slow
def test_a_resumed_training_gives_the_curves_of_an_uninterrupted_one(tiny, tmp_path):
    from danseg.engine.train import train

    whole = tiny()
    whole.work_dir, whole.randomness = str(tmp_path / "whole"), dict(seed=3)
    train(whole)
    parts = []
    for length in (3, 4):  # the first one stops after its checkpoint of 2
        config = tiny(
            {"train_cfg.max_iters": length, "param_scheduler.0.end": 4, "val_evaluator": whole.val_evaluator}
        )
        config.work_dir, config.randomness = str(tmp_path / "parts"), dict(seed=3)
        parts.append(config)
    train(parts[0])
    for path in (tmp_path / "parts").glob("*_3.pth"):
        path.unlink()
    train(parts[1], resume="auto")
    expected, found = read_training(tmp_path / "whole"), read_training(tmp_path / "parts")
    assert (expected.starts, found.starts) == (1, 2)
    assert [at for at, _ in found.curves[LOSS]] == [1, 2, 3, 4]
    assert found.curves[RATE] == expected.curves[RATE] and found.curves[LOSS] == expected.curves[LOSS]
    assert found.curves[SCORE][-1] == expected.curves[SCORE][-1]
