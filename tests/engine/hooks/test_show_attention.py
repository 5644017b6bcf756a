"""How attention forms: the pictures of a training's validations, which change nothing in it."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from danseg import apis
from danseg.engine.config.config_file import load_config
from danseg.engine.config.options import configure_training
from danseg.engine.hooks import ShowAttention, show_attention
from danseg.engine.runner import DansegRunner
from danseg.engine.train import train
from danseg.errors import UserError
from danseg.visualization import AttentionMaps, read_image

TWICE = {
    "train_cfg.max_iters": 4,
    "train_cfg.val_interval": 2,
    "default_hooks.checkpoint.interval": 2,
    "default_hooks.checkpoint.max_keep_ckpts": -1,
    "randomness": {"seed": 0},
}
SHOW = {"type": "ShowAttention", "pictures": 2}


def trained(config, work: Path) -> DansegRunner:
    config.work_dir = str(work)
    return train(config, log=lambda message: None)


def pictures(work: Path) -> list[Path]:
    return sorted(work.glob("*/vis_data/vis_image/attention/*.png"))


def logs(work: Path) -> str:
    return "".join(path.read_text() for path in work.glob("*/*.log"))


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of each figure that is drawn, beside the figure itself."""
    module = importlib.import_module("danseg.visualization")
    figure, found = module.overview_figure, []

    def draw(image, truth, prediction, attention, **options):
        found.append((truth, prediction, attention, options))
        return figure(image, truth, prediction, attention, **options)

    monkeypatch.setattr(module, "overview_figure", draw)
    return found


@pytest.mark.slow
def test_pictures_of_every_validation_and_the_same_weights_as_without(tiny, tmp_path, drawn):
    shown, plain = tmp_path / "shown", tmp_path / "plain"
    runner = trained(tiny({**TWICE, "custom_hooks": [SHOW]}), shown)
    files = pictures(shown)
    assert len(files) == 4 == len(drawn)
    names = sorted({path.stem.rpartition("_")[0] for path in files})
    assert sorted(path.name for path in files) == sorted(f"{n}_{step}.png" for n in names for step in (2, 4))
    for name in names:
        first, last = (read_image(path) for path in files if path.stem.startswith(name))
        assert first.shape[1] == last.shape[1]  # the legend may have another row
        assert first.shape != last.shape or (first != last).any()
    [events] = shown.glob("*/vis_data/events*")  # of TensorBoard
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    assert accumulator.Tags()["images"] == [f"attention/{name}" for name in names]
    assert [one.step for one in accumulator.Images(f"attention/{names[0]}")] == [2, 4]

    # To the bit, batch statistics too.
    trained(tiny(TWICE), plain)
    assert not pictures(plain)
    for step in (2, 4):
        first, second = (torch.load(work / f"iter_{step}.pth", weights_only=False) for work in (shown, plain))
        assert first["state_dict"].keys() == second["state_dict"].keys()
        assert all(torch.equal(value, second["state_dict"][k]) for k, value in first["state_dict"].items())
    assert runner.network.test_cfg.mode == "slide"  # as it was

    # What is drawn is what an exploration of the last checkpoint shows, of the whole picture.
    model = apis.load_model(runner.cfg, str(shown / "iter_4.pth"), "cpu")
    dataset = runner.val_loop.dataloader.dataset
    for place, (truth, prediction, attention, _) in zip((1, 3), drawn[2:], strict=True):
        exploration = apis.explore(model, dataset.get_data_info(place)["img_path"])
        assert (exploration.labels == prediction).all()
        maps = attention[0]
        assert isinstance(maps, AttentionMaps) and maps.rows.shape == (3, 8, 16)
        expected = exploration.attention("decode_head.pam", maps.positions)
        np.testing.assert_allclose(maps.rows, expected.rows, rtol=1e-4, atol=1e-7)
        assert attention[1].module == "decode_head.cam"
        assert all(0 <= truth[y, x] < 19 for x, y in maps.positions)
    assert [one[2][0].positions for one in drawn[:2]] == [one[2][0].positions for one in drawn[2:]]
    assert drawn[3][3]["name"].endswith(", iteration 4")


@pytest.mark.slow
def test_a_head_without_attention_is_drawn_without_and_said_once(tiny, tmp_path, drawn):
    head = dict(type="FCNHead", num_convs=1, in_channels=64, in_index=3, channels=8, num_classes=19)
    text = f"model = dict(decode_head=dict(_delete_=True, align_corners=False, **{head}))"
    config = tiny({**TWICE, "custom_hooks": [SHOW]}, text=text)
    trained(config, tmp_path / "work")
    assert len(pictures(tmp_path / "work")) == 4 and not any(one[2] for one in drawn)
    said = "FCNHead has no attention to show"
    assert logs(tmp_path / "work").count(said) == 1
    assert "its pictures show the prediction alone" in logs(tmp_path / "work")


@pytest.mark.slow
def test_the_weights_are_those_that_are_validated(tiny, tmp_path, monkeypatch):
    """A moving average stands in the network during a validation, and in the checkpoint."""
    seen = []
    monkeypatch.setattr(
        ShowAttention,
        "_show",
        lambda self, runner, *_: seen.append(
            {name: value.clone() for name, value in runner.network.state_dict().items()}
        ),
    )
    hooks = [{"type": "EMAHook", "momentum": 0.5}, {**SHOW, "pictures": 1}]
    runner = trained(tiny({**TWICE, "custom_hooks": hooks}), tmp_path / "work")
    saved = torch.load(tmp_path / "work" / "iter_4.pth", weights_only=False)["state_dict"]
    weights = dict(runner.network.named_parameters())
    assert len(seen) == 2
    assert all(torch.equal(seen[-1][name], saved[name]) for name in weights)
    assert any(not torch.equal(seen[-1][name], value) for name, value in weights.items())


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_ends_no_training(tiny, tmp_path, monkeypatch):
    def no_room(self, runner, *_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(ShowAttention, "_show", no_room)
    trained(tiny({**TWICE, "custom_hooks": [SHOW]}), tmp_path / "work")
    said = "pictures of attention: a whole picture takes more memory than the GPU has left; the run goes on"
    assert logs(tmp_path / "work").count(said) == 1
    assert (tmp_path / "work" / "iter_4.pth").is_file()


def test_a_validation_by_itself_draws_nothing(tiny, tmp_path):
    options = {**TWICE, "custom_hooks": [SHOW], "default_hooks.checkpoint.save_best": None}
    DansegRunner.from_cfg(tiny(options)).val()
    assert not pictures(tmp_path / "work")


def test_the_first_process_alone_draws(monkeypatch):
    hook, drawn = ShowAttention(), []
    monkeypatch.setattr(ShowAttention, "_show", lambda self, runner, place, names: drawn.append(place))
    monkeypatch.setattr(show_attention, "output_names", lambda dataset: {})
    runner = SimpleNamespace(val_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=range(100))))
    hook.before_train(runner)
    for first in (False, True):
        monkeypatch.setattr(show_attention, "is_main_process", lambda first=first: first)
        hook.after_val_epoch(runner)
        assert drawn == ([16, 50, 83] if first else [])  # at equal distances


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
@pytest.mark.parametrize("name", ["pictures", "positions"])
def test_numbers_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
        ShowAttention(**{name: value})


def test_the_option_adds_the_hook_or_changes_the_configs_own(tiny):
    config = tiny({"custom_hooks": [{"type": "EMAHook"}]})
    configure_training(config, show_attention=5)
    assert config.custom_hooks == [{"type": "EMAHook"}, {"type": "ShowAttention", "pictures": 5}]
    configure_training(config, show_attention=2)
    assert config.custom_hooks == [{"type": "EMAHook"}, {"type": "ShowAttention", "pictures": 2}]
    configure_training(config)
    assert config.custom_hooks[1]["pictures"] == 2
    plain = load_config(config.filename)
    configure_training(plain)
    assert not plain.get("custom_hooks")
    plain.val_dataloader = None
    with pytest.raises(UserError, match="--show-attention draws at validations, and .* no val_dataloader"):
        configure_training(plain, show_attention=1)
