"""Which views a figure shows, and what is said of channels: on networks of several modules."""

from pathlib import Path

import numpy as np
import pytest

from danseg import apis
from danseg.apis.explore_files import Question, check_targets, chosen_views, explore_file, known_channels
from danseg.errors import UserError
from danseg.visualization.shown_view import MOST_VIEWS


@pytest.fixture
def exploration(camvid, tmp_path, make_config, make_checkpoint):
    config = make_config(camvid)
    model = apis.load_model(config, make_checkpoint(config, tmp_path / "weights.pth"), "cpu")
    return apis.explore(model, str(camvid / "val" / "a.png"))


def with_plugins(config):
    """A network whose backbone attends too, in 16 blocks, and whose head does."""
    plugin = dict(cfg=dict(type="ChannelAttention"), stages=(True,) * 4, position="after_conv3")
    config.model.backbone.update(depth=50, plugins=[plugin])
    config.model.decode_head.update(in_channels=256)
    return config


def test_the_heads_views_come_first_and_the_others_are_counted(camvid, tmp_path, make_config):
    config, picture = with_plugins(make_config(camvid)), str(camvid / "val" / "a.png")
    out = tmp_path / "new" / "a.npz"
    figure, numbers = check_targets(None, str(out), picture, moving=False)
    assert figure is None
    [said, *_] = explore_file(config, None, picture, Question(), figure=None, numbers=numbers, device="cpu")
    assert said.startswith("2 of 18 views are shown; others by --view or --module: backbone.layer1.0.")
    assert list(np.load(out)["views"]) == ["decode_head.pam", "decode_head.cam"]
    backbone = [f"backbone.layer{stage}.0" for stage in (1, 2)]
    question = Question(modules=[f"{one}.attention_1" for one in backbone])
    with pytest.raises(UserError, match="no module 'backbone.layer1.0.attention_1' has attention"):
        list(explore_file(config, None, picture, question, figure=None, numbers=None, device="cpu"))
    config.model.decode_head = dict(
        type="FCNHead", num_convs=1, in_channels=256, in_index=3, channels=16, num_classes=11
    )
    model = apis.load_model(config, None, "cpu")
    alone = apis.explore(model, picture)
    assert chosen_views(alone, Question()) == list(alone.views)[:MOST_VIEWS]
    last = list(alone.views)[-1]
    assert chosen_views(alone, Question(views=[last])) == [last]


def test_channels_are_named_after_their_classes_and_positions(exploration):
    positions = [(5, 5), (60, 50), (5, 5)]
    known = known_channels(exploration, "decode_head.cam", positions)
    classes = exploration.channel_classes("decode_head.cam")
    assert list(known.serves) == [exploration.classes[one] if one >= 0 else "none" for one in classes]
    first, second = (exploration.strongest_channel("decode_head.cam", one) for one in positions[:2])
    expected = {first: "at 1, 2, 3"} if first == second else {}
    assert known.rows == (expected or {first: "at 1, 3", second: "at 2"})
    assert known_channels(exploration, "decode_head.pam", positions) is None


def test_files_are_named_after_the_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_targets(None, None, "in/x.y.jpg", moving=False) == (Path("x.y_attention.png"), None)
    assert check_targets(None, None, "in/x.jpg", moving=True) == (Path("x_attention.gif"), None)
    assert check_targets("A.PDF", "A.NPZ", "x.jpg", moving=False) == (Path("A.PDF"), Path("A.NPZ"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        check_targets("file/a.png", None, "x.jpg", moving=False)
