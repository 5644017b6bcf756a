"""Statistics of attention whose maps, gates and effects are known."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import danseg.attention
from danseg import apis
from danseg.apis.attention_statistics import attention_statistics
from danseg.attention.parts.views import ShowsAttention, View
from danseg.errors import UserError

MODULE = "backbone.layer4.1"


class Shown(ShowsAttention, nn.Module):
    """A module that shows what it is told and does what it is told."""

    def __init__(self, views, factor=1.0):
        super().__init__()
        self.views, self.factor = views, factor

    def forward(self, x):
        return x * self.factor

    def attention_views(self):
        return self.views

    def without_attention(self, x, out):
        return x * torch.linspace(0, 1, x.shape[3])


@pytest.fixture
def pictures(camvid):
    return [str(camvid / "val" / f"{name}.png") for name in ("a", "b")]


@pytest.fixture
def make(camvid, make_config):
    def build(head=None, shown=None):
        torch.manual_seed(0)
        model = apis.load_model(make_config(camvid, head=head), None, "cpu")
        for name, value in model.state_dict().items():
            if name.endswith("gamma.scale"):
                value.fill_(0.7)
            elif value.dim() > 1:
                value.normal_(std=0.2)
        if shown is not None:
            model.backbone.layer4 = nn.Sequential(model.backbone.layer4, shown)
        return model

    return build


def figures_of(make, pictures, *views, **how):
    model = make(dict(type="FCNHead", num_convs=1), Shown(views, **how))
    [found] = attention_statistics(model, pictures, positions=5, seed=3).modules
    return found


def uniform(x):
    return lambda positions: x.new_full((1, len(positions), *x.shape[2:]), 1 / (x.shape[2] * x.shape[3]))


def one_cell(row, column):
    def begin(x):
        def maps(positions):
            found = x.new_zeros(1, len(positions), *x.shape[2:])
            found[:, :, row, column] = 1
            return found

        return maps

    return begin


def itself(x):
    def maps(positions):
        found = x.new_zeros(1, len(positions), *x.shape[2:])
        for index, (row, column) in enumerate(positions):
            found[0, index, row, column] = 1
        return found

    return maps


def drawn(image: int) -> np.ndarray:
    """x and y of the positions in a picture of 60 x 72, counted from 1."""
    random = np.random.default_rng([3, image])
    return np.stack([random.integers(0, 72, 5), random.integers(0, 60, 5)], axis=1)


def test_maps_that_are_known(make, pictures):
    found = figures_of(
        make,
        pictures,
        View("position", uniform),
        View("position", one_cell(1, 2), "corner"),
        View("position", itself, "itself"),
    )
    flat, corner, own = (view.figures for view in found.views)
    assert [view.verdict for view in found.views] == ["flat", "the same from everywhere", "alive"]
    assert [view.key for view in found.views] == [MODULE, f"{MODULE}:corner", f"{MODULE}:itself"]
    assert flat["entropy"] == pytest.approx(1) and flat["difference"] == pytest.approx(0, abs=1e-6)
    assert corner["entropy"] == own["entropy"] == 0
    # 5 x 6 cells of 12 x 12 pixels
    expected = [np.hypot(*(drawn(image) + 0.5 - (30, 18)).T).mean() for image in (1, 2)]
    assert corner["distance_pixels"] == pytest.approx(np.mean(expected))
    assert corner["distance"] == pytest.approx(np.mean(expected) / np.hypot(60, 72))
    expected = [np.hypot(*(drawn(image) + 0.5 - (drawn(image) // 12 * 12 + 6)).T).mean() for image in (1, 2)]
    assert own["distance_pixels"] == pytest.approx(np.mean(expected)) and own["difference"] > 0.5


def test_gates_channels_and_branches_that_are_known(make, pictures):
    gates = torch.tensor([0.2, 0.4, 0.6, 0.8])
    level = torch.full((4,), 0.5)
    shares = torch.tensor([[0.1, 0.3], [0.9, 0.7]])
    found = figures_of(
        make,
        pictures,
        View("channels", lambda x: lambda: gates[None, None], values="gate"),
        View("channels", lambda x: lambda: level[None, None], "level", "gate"),
        View("channels", lambda x: lambda: (1e3 * x).mean().sin().expand(1, 1, 4), "of the picture", "gate"),
        View("branches", lambda x: lambda: shares[None], "branches", parts=("3x3", "5x5")),
        View("channels", lambda x: lambda: torch.eye(4)[None], "rows"),
        View("everywhere", lambda x: lambda: x.new_full((1, 1, 4, 4), 1 / 16), "one"),
        View("everywhere", lambda x: lambda: gates.view(1, 1, 2, 2), "gate", "gate"),
        View("everywhere", lambda x: lambda: gates.view(1, 2, 1, 2), "where", "gate", ("left", "right")),
    )
    by_name = {view.key.partition(":")[2]: view for view in found.views}
    first = by_name[""].figures
    assert first["mean"] == pytest.approx(0.5) and first["spread"] == pytest.approx(np.std(gates.numpy()))
    assert first["between_pictures"] == 0 and by_name[""].verdict == "alive"
    assert by_name["level"].verdict == "constant" and by_name["of the picture"].verdict == "alive"
    assert by_name["of the picture"].figures["spread"] == pytest.approx(0, abs=1e-6)
    branches = by_name["branches"].figures
    assert branches["parts"] == pytest.approx({"3x3": 0.2, "5x5": 0.8})
    assert branches["spread"] == pytest.approx(0.1)
    entropy = [-sum(p * np.log(p) for p in column) / np.log(2) for column in shares.T.tolist()]
    assert branches["entropy"] == pytest.approx(np.mean(entropy))
    rows = by_name["rows"].figures
    assert rows["entropy"] == 0 and rows["difference"] == pytest.approx(0.75) and "distance" not in rows
    where = by_name["where"].figures
    assert where.pop("parts") == pytest.approx({"left": 0.3, "right": 0.7})
    assert where == pytest.approx({"spread": 0.1})
    assert by_name["one"].verdict == "flat" and "difference" not in by_name["one"].figures
    assert (
        by_name["gate"].figures["mean"] == pytest.approx(0.5)
        and "between_pictures" not in by_name["gate"].figures
    )


def test_what_changes_without_a_module_is_counted_over_all_pixels(make, pictures):
    model = make()
    found = attention_statistics(model, pictures, positions=2)
    assert [one.module for one in found.modules] == ["decode_head.pam", "decode_head.cam"]
    explored = [apis.explore(model, picture) for picture in pictures]
    for one in found.modules:
        effects = [exploration.effect(one.module) for exploration in explored]
        assert (
            one.changed == pytest.approx(np.mean([effect.changed for effect in effects])) and one.changed > 0
        )
        assert one.largest_change == max(effect.largest_change for effect in effects)
        assert one.scale == pytest.approx(0.7)


def test_dead_idle_and_living_heads(make, pictures, monkeypatch):
    model = make()
    nn.init.zeros_(model.decode_head.pam.gamma.scale)
    pam, cam = attention_statistics(model, pictures, positions=2).modules
    assert (pam.changed, pam.largest_change, pam.scale) == (0, 0, 0)
    assert pam.views[0].verdict == "dead: γ is 0" and not cam.views[0].verdict.startswith("dead")
    nn.init.constant_(model.decode_head.pam.gamma.scale, 1e-6)
    pam, _ = attention_statistics(model, pictures, positions=2).modules
    assert pam.views[0].verdict == "idle" and pam.largest_change > 0

    class Still(Shown):
        def without_attention(self, x, out):
            return out

    model = make(dict(type="FCNHead", num_convs=1), Still((View("position", itself),)))
    [still] = attention_statistics(model, pictures, positions=2).modules
    assert still.views[0].verdict == "dead: no logit changes without it"


def test_the_seed_decides_and_the_dict_is_json(make, pictures):
    model = make()
    first, again, other = (
        attention_statistics(model, pictures, positions=4, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first.modules[1] == other.modules[1]  # channels have no positions
    alone = attention_statistics(model, pictures[:1], positions=4)
    stored = json.loads(json.dumps(alone.as_dict(), allow_nan=False))
    assert (stored["images"], stored["positions"], stored["seed"]) == (1, 4, 0) and stored["rule"]
    assert stored["modules"][0]["views"][0]["figures"]["entropy"] >= 0
    assert stored["modules"][1]["views"][0]["figures"]["difference"] > 0


SHOWING = sorted(
    name
    for name in set(danseg.attention.__all__) - {"NonLocal1d", "NonLocal3d"}
    if issubclass(getattr(danseg.attention, name), ShowsAttention)
)


@pytest.mark.parametrize("name", SHOWING)
def test_every_module_has_its_figures(make, pictures, name):
    sizes = dict(mask_size=(5, 7)) if name == "PointwiseSpatialAttention" else {}
    model = make(dict(type="AttentionHead", attention=dict(type=f"danseg.{name}", **sizes)))
    for parameter in model.parameters():
        if not parameter.any():  # some start as if they were not there
            nn.init.normal_(parameter, std=0.2)
    found = attention_statistics(model, pictures, positions=3)
    assert found.modules and all(module.views for module in found.modules)
    for module in found.modules:
        assert module.largest_change > 0
        for view in module.views:
            assert view.figures and view.verdict
            assert view.kind != "position" or 0 <= view.figures["entropy"] <= 1 + 1e-9
            assert view.kind != "branches" or view.values != "shares" or _sum_of(view) == pytest.approx(1)
    json.dumps(found.as_dict(), allow_nan=False)


def _sum_of(view) -> float:
    return sum(view.figures["parts"].values())


def test_mistakes(make, pictures):
    with pytest.raises(ValueError, match="at least one picture"):
        attention_statistics(make(), [])
    with pytest.raises(ValueError, match="at least 2, .* got 1"):
        attention_statistics(make(), pictures, positions=1)
    with pytest.raises(UserError, match="no_such.png"):
        attention_statistics(make(), [*pictures, "no_such.png"])
    broken = make()
    broken.decode_head.conv_seg.weight.data[0] = float("nan")
    with pytest.raises(UserError, match="logits are not finite"):
        attention_statistics(broken, pictures)
