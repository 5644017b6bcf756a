"""A position that moves: where it is in each frame, and on which scale."""

import numpy as np
import pytest

from danseg import apis
from danseg.apis import attention_animation
from danseg.apis.attention_animation import along, animation


def test_positions_lie_at_equal_distances_on_straight_lines():
    assert along([(0, 0), (10, 0)], 3) == [(0, 0), (5, 0), (10, 0)]
    # 30 to the right and 10 down: steps of 10
    assert along([(0, 0), (30, 0), (30, 10)], 5) == [(0, 0), (10, 0), (20, 0), (30, 0), (30, 10)]
    assert along([(3, 4), (3, 4)], 2) == [(3, 4), (3, 4)]
    assert along([(9, 9), (0, 0)], 4)[0] == (9, 9)


@pytest.fixture
def drawn(camvid, tmp_path, make_config, make_checkpoint, monkeypatch):
    """The pictures of three frames, and the parts that were drawn into them."""
    config = make_config(camvid)
    model = apis.load_model(config, make_checkpoint(config, tmp_path / "weights.pth"), "cpu")
    exploration = apis.explore(model, str(camvid / "val" / "a.png"))
    stacked, parts = attention_animation.stacked, []

    def stack(columns, of_frame):
        parts.append(of_frame[0])
        return stacked(columns, of_frame)

    monkeypatch.setattr(attention_animation, "stacked", stack)

    def draw(same_scale):
        parts.clear()
        frames = list(animation(exploration, ["decode_head.pam"], [(5, 5), (40, 30), (71, 59)], same_scale))
        return exploration, frames, list(parts)

    return draw


@pytest.mark.parametrize("same_scale", [False, True])
def test_each_frame_shows_its_position(drawn, same_scale):
    exploration, frames, parts = drawn(same_scale)
    assert len({frame.shape for frame in frames}) == 1 and frames[0].dtype == np.uint8
    maps = exploration.attention("decode_head.pam", [(5, 5), (40, 30), (71, 59)])
    for place, part in enumerate(parts):
        assert part.attention.positions == [maps.positions[place]]
        np.testing.assert_array_equal(part.attention.rows[0], maps.rows[place])
    top = float(maps.over_image().max())
    scales = [None if part.scale is None else part.scale.high for part in parts]
    assert scales == ([pytest.approx(top)] * 3 if same_scale else [None] * 3)
