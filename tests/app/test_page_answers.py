"""What a page shows is what the exploration says: labels, areas, probabilities, maps, bars, effects."""

import base64
import re
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import danseg.attention
from bad_files import drawn
from danseg.apis import Exploration, explore
from danseg.app import page_answers as answers
from danseg.attention.parts.views import ShowsAttention
from danseg.errors import UserError
from danseg.visualization import AttentionMaps, AttentionWeights, Placement
from few_layers import few_layers, few_layers_model


@pytest.fixture(scope="module")
def exploration(networks, pictures) -> Exploration:
    return explore(networks[0].model, str(pictures[0]))


def decoded(source: str) -> np.ndarray:
    """A picture of data, RGB or with alpha."""
    content = np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def test_a_stage_has_the_picture_its_ids_and_its_full_size(exploration):
    stage = answers.stage(exploration, "net")
    assert (stage["width"], stage["height"], stage["network"]) == (72, 48, "net")
    ids = decoded(stage["labels"]).astype(int)
    assert np.array_equal(ids[..., 0] + 256 * ids[..., 1], exploration.labels)
    assert np.abs(decoded(stage["image"]).astype(int) - exploration.image).mean() < 3
    assert stage["classes"] == list(exploration.classes) and len(stage["palette"]) == 5


def test_a_large_picture_is_reduced_and_ids_above_255_arrive():
    labels = np.arange(2000)[None].repeat(1000, 0) // 2
    large = SimpleNamespace(
        labels=labels, image=np.zeros((1000, 2000, 3), np.uint8), classes=["a"] * 1000, palette=[(1, 2, 3)]
    )
    stage = answers.stage(large, "net")
    ids = decoded(stage["labels"]).astype(int)
    found = ids[..., 0] + 256 * ids[..., 1]
    assert found.shape == (512, 1024) and (stage["width"], stage["height"]) == (2000, 1000)
    columns = ((np.arange(1024) + 0.5) * 2000 / 1024).astype(int)
    assert np.array_equal(found[100], columns // 2)


def test_the_legend_has_every_area_and_escapes_names(exploration):
    said = answers.legend(exploration)
    shares = [float(one) for one in re.findall(r"<span>([\d.]+)%</span>", said)]
    counts = np.bincount(exploration.labels.ravel()) / exploration.labels.size
    assert shares == [round(100 * one, 1) for one in sorted(counts[counts > 0], reverse=True)]
    named = SimpleNamespace(labels=np.zeros((2, 2), int), image=None, classes=("<b>&",), palette=[(1, 2, 3)])
    assert "&lt;b&gt;&amp;" in answers.legend(named) and "rgb(1, 2, 3)" in answers.legend(named)


def test_a_pixel_has_its_class_and_the_first_three_probabilities(exploration):
    probabilities = exploration.probabilities((11, 30))
    first = np.argsort(-probabilities)[:3]
    listed = ", ".join(f"class {one} {probabilities[one]:.1%}" for one in first)
    name = f"class {exploration.labels[30, 11]}"
    assert answers.classed(exploration, (11, 30)) == f"<strong>{name}</strong> at x = 11, y = 30 ({listed})"


def test_a_map_is_strongest_where_the_exploration_says(exploration):
    position = (11, 30)
    shown = exploration.attention("decode_head.pam", [position])
    heat = shown.over_image()[0]
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    made = answers.looking(exploration, "decode_head.pam", 0, position)
    assert (
        f"most at x = {x}, y = {y} (class {exploration.labels[y, x]}), {heat.max():.3g} ×" in made["caption"]
    )
    coloured = decoded(made["source"])
    opacity = coloured[..., 3].astype(int)
    assert coloured.shape == (48, 72, 4) and opacity[y, x] == opacity.max() == int(0.85 * 255)
    assert (
        made["bar"][0] == "#000004" and len(made["bar"]) == 9 and made["high"].startswith(f"{heat.max():.3g}")
    )
    other = answers.looking(exploration, "decode_head.pam", 0, (60, 5))
    assert other["source"] != made["source"]


def test_channels_are_those_from_which_the_strongest_gathers_most(exploration):
    position = (11, 30)
    made = answers.looking(exploration, "decode_head.cam", 0, position)
    row = exploration.strongest_channel("decode_head.cam", position)
    weights = exploration.attention("decode_head.cam").weights[row]
    order = np.argsort(-np.abs(weights), kind="stable")
    assert [bar[0].partition(":")[0] for bar in made["bars"]] == [str(one) for one in order[:12]]
    assert made["bars"][0][1:] == [1.0, f"{weights[order[0]]:.3g}"]
    assert f"channel {row}: class" in made["caption"] and "source" not in made


class Shows:
    """An exploration that has one view."""

    labels, classes = np.zeros((4, 6), int), ("one",)

    def __init__(self, kind: str, shown: Any) -> None:
        self.views, self._shown = {"net": SimpleNamespace(kind=kind, parts=shown.parts)}, shown

    def attention(self, key: str, positions: Any = ()) -> Any:
        return self._shown


def maps(rows: np.ndarray, parts: tuple[str, ...] = (), **about: Any) -> Shows:
    placement = Placement((4, 6), (4, 6), (4, 6))
    return Shows("everywhere", AttentionMaps("net", [], rows, placement, parts=parts, **about))


def test_maps_that_are_the_same_for_all_are_chosen_by_their_names():
    rows = np.zeros((2, 4, 6))
    rows[0, 1, 2], rows[1, 3, 5] = 1, 1
    shows = maps(rows, ("down", "across"))
    assert answers.parts_of(shows, "net") == ["down", "across"]
    assert "x = 2, y = 1" in answers.looking(shows, "net", 0, (0, 0))["caption"]
    assert (
        "the same from everywhere: most at x = 5, y = 3"
        in answers.looking(shows, "net", 1, (0, 0))["caption"]
    )
    assert answers.parts_of(maps(rows), "net") == ["map 1", "map 2"]
    assert answers.parts_of(maps(rows[:1]), "net") == []


def test_negative_weights_have_a_scale_around_0():
    rows = np.zeros((1, 4, 6))
    rows[0, 0, 0], rows[0, 2, 2] = -1, 0.5
    made = answers.looking(maps(rows, values="weights"), "net", 0, (0, 0))
    assert (made["low"], made["high"]) == ("-24", "24 weight × number of cells")


def test_a_scale_of_0_is_told():
    made = answers.looking(maps(np.ones((1, 4, 6)), scale=0.0), "net", 0, (0, 0))
    assert "(γ = 0)" in made["caption"] and "the network ignores" in made["caption"]


def test_branches_are_means_over_channels():
    shown = AttentionWeights("net", np.array([[0.2, 0.4], [0.8, 0.6]]), "branches", parts=("3x3", "5x5"))
    made = answers.looking(Shows("branches", shown), "net", 0, (0, 0))
    assert [bar[0] for bar in made["bars"]] == ["3x3", "5x5"]
    assert [bar[2] for bar in made["bars"]] == ["0.3", "0.7"] and made["bars"][1][1] == 1


def test_the_effect_is_told_and_drawn_where_labels_change(exploration):
    effect = exploration.effect("decode_head.pam", [(11, 30)])
    said = answers.effect_words(exploration, effect)
    before, after = exploration.labels[30, 11], effect.labels[30, 11]
    on, off = effect.with_attention[0][before], effect.without[0][before]
    assert said.startswith(effect.summary())
    assert f"{'stays' if before == after else 'becomes'} class {after}" in said
    assert f"the logit of class {before} goes from {on:.3g} to {off:.3g}" in said
    changed = decoded(answers.changed_map(exploration, effect))[..., 3] > 0
    assert np.array_equal(changed, effect.labels != exploration.labels) and changed.any()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (72, 0, "x must be a whole number from 0 to 71, got 72"),
        (0, -1, "y must be a whole number from 0 to 47, got -1"),
        (1.5, 0, "got 1.5"),
        (None, 0, "x must be .* got None"),
        ("3", 0, "got '3'"),
        (float("nan"), 0, "got nan"),
    ],
)
def test_other_positions_are_refused(exploration, x, y, message):
    with pytest.raises(UserError, match=message):
        answers.as_position(x, y, exploration)


def test_positions_of_an_address_are_numbers(exploration):
    assert answers.as_position(*answers.as_numbers("71", "47"), exploration) == (71, 47)
    assert answers.as_position(3.0, 4, exploration) == (3, 4)


def test_another_view_is_refused(exploration):
    with pytest.raises(UserError, match="there is no view 'x'; there are decode_head.pam, decode_head.cam"):
        answers.looking(exploration, "x", 0, (0, 0))


SHOWN = [
    name
    for name in danseg.attention.__all__
    if issubclass(getattr(danseg.attention, name), ShowsAttention) and not name.endswith(("1d", "3d"))
]


@pytest.mark.parametrize("name", SHOWN)
def test_every_view_of_every_module_has_a_picture_or_bars_and_a_caption(name):
    model = few_layers_model(few_layers(dict(type="AttentionHead", attention=dict(type=name))))
    exploration = explore(model, drawn(3))
    assert exploration.views
    for key, view in exploration.views.items():
        parts = answers.parts_of(exploration, key)
        for part in range(max(1, len(parts))):
            made = answers.looking(exploration, key, part, (30, 20))
            assert (view.kind in ("position", "everywhere")) == ("source" in made) == ("bars" not in made)
            assert key.partition(":")[0] in made["caption"] and view.name in made["caption"]
            if "source" in made:
                assert decoded(made["source"]).shape == (48, 72, 4)
            else:
                assert made["bars"] and max(length for _, length, _ in made["bars"]) == 1
