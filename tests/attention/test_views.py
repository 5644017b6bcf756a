"""What every attention module promises to show, checked over all of ``danseg.attention.__all__``.

A module's own test file compares each of its views with its equation. Where its attention still chooses
something when the module is new, that file names in ``NEUTRAL`` the parameters that, all zero, leave it
nothing to choose; None says that there are no such parameters.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from cpu_alone import cpu_alone, one_on_gpu
from danseg.attention.parts.views import ShowsAttention, View
from danseg.visualization import attention_modules
from danseg.visualization.attention_switch import switched_off
from drawn_attention import IN_CHANNELS, MODE, MODULES, VARIANTS, feature_map, make
from own_test import own_test

SHOWING = [name for name in sorted(MODULES) if issubclass(MODULES[name], ShowsAttention)]
CASES = [variant for variant in VARIANTS if variant[0] in SHOWING]
every_case = pytest.mark.parametrize(("name", "arguments"), one_on_gpu(CASES, MODE), ids=str)
every_showing = pytest.mark.parametrize("name", SHOWING)


def test_every_module_shows_its_attention_or_has_parts_that_do():
    assert [name for name in MODULES if not attention_modules(make(name, "cpu"))] == []


def test_there_are_modules_of_every_kind():
    kinds = {view.kind for name in SHOWING for view in make(name, "cpu").attention_views()}
    assert len(SHOWING) >= 12 and kinds == {"position", "everywhere", "channels", "branches"}


def ask(view: View, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A question to a view that has begun with ``x``: of positions, its first and its last one."""
    begun = view.begin(x)
    return lambda: begun(positions(x)) if view.kind == "position" else begun()


def positions(x: torch.Tensor) -> list[tuple[int, ...]]:
    sides = x.shape[2:]
    return [(0,) * len(sides), tuple(side - 1 for side in sides)]


def without_attention(module: Any, x: torch.Tensor) -> torch.Tensor:
    """What the module gives with its attention switched off; its exit gives the same shape and type."""
    kinds = []

    def note(running: nn.Module, args: tuple, out: torch.Tensor) -> None:
        kinds.append((out.shape, out.dtype))

    handles = [module.attention_exit.register_forward_hook(note)]
    with switched_off(module, ""):
        handles.append(module.attention_exit.register_forward_hook(note))
        out = module(x)
    for handle in handles:
        handle.remove()
    with_attention, without = kinds
    assert with_attention == without
    return out


def require_right(view: View, x: torch.Tensor, shown: torch.Tensor) -> None:
    """Compare what a view shows with what its kind and its values promise."""
    assert shown.isfinite().all()
    assert shown.dtype in (torch.float32, torch.float64)
    assert len(shown) == len(x)
    if view.kind in ("position", "everywhere"):
        assert shown.dim() == x.dim()
        assert all(0 < cells <= side for cells, side in zip(shown.shape[2:], x.shape[2:], strict=True))
        assert view.kind == "everywhere" or shown.shape[1] == len(positions(x))
        sums = shown.flatten(2).sum(dim=2)
    else:
        assert shown.dim() == 3
        assert view.kind == "branches" or shown.shape[1] in (1, shown.shape[2])
        sums = shown.sum(dim=2 if view.kind == "channels" else 1)
    assert not view.parts or len(view.parts) == len(set(view.parts)) == shown.shape[1]
    if view.values == "shares":
        assert (shown >= 0).all()
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-5, atol=1e-5)
    elif view.values == "gate":
        assert (shown >= 0).all() and (shown <= 1 + 1e-6).all()


@every_case
@pytest.mark.parametrize("training", [False, cpu_alone(True)])
@pytest.mark.parametrize(
    ("dtype", "way"),
    [
        (torch.float32, "cast"),
        cpu_alone(torch.bfloat16, "cast"),
        cpu_alone(torch.float16, "cast"),
        (torch.bfloat16, "autocast"),
        cpu_alone(torch.float16, "autocast"),
        cpu_alone(torch.bfloat16, "autocast after a convolution"),
    ],
)
@torch.no_grad()
def test_every_view_is_what_it_says(name, arguments, training, dtype, way, device):
    module = make(name, device, dtype if way == "cast" else torch.float32, **arguments).train(training)
    x = feature_map(name, device, torch.float32 if way == "autocast" else dtype)
    kept = x.clone()
    with torch.autocast(device.type, dtype, enabled=way != "cast"):
        views = module.attention_views()
        for view in views:
            require_right(view, x, ask(view, x)())
        out, without = module(x), without_attention(module, x)
    assert torch.equal(x, kept)
    assert without.isfinite().all()
    assert without.shape == out.shape and without.dtype == out.dtype
    names = [view.name for view in views]
    assert names[0] == "" and "" not in names[1:] and len(set(names)) == len(names)
    assert not [one for one in names if ":" in one]  # it parts a module's path from the view's name


@every_case
@torch.no_grad()
def test_a_view_begins_once_and_answers_as_often_as_it_is_asked(name, arguments, device):
    module, x = make(name, device, **arguments), feature_map(name, device)
    ran: list[nn.Module] = []
    for part in module.modules():
        part.register_forward_hook(lambda part, *rest: ran.append(part))
    for view in module.attention_views():
        question = ask(view, x)
        ran.clear()
        first = question().clone()
        changed = {key: value.clone() for key, value in module.state_dict().items()}
        for parameter in module.parameters():
            parameter.zero_()
        assert torch.equal(question(), first)  # by the weights that it began with
        module.load_state_dict(changed)
        assert not ran


@every_case
@torch.no_grad()
def test_an_image_does_not_see_its_batch_mates(name, arguments, device):
    module = make(name, device, torch.float64, **arguments)
    x = feature_map(name, device, torch.float64)
    for view in module.attention_views():
        torch.testing.assert_close(ask(view, x)()[1:], ask(view, x[1:])(), rtol=1e-10, atol=1e-12)
    without, alone = without_attention(module, x), without_attention(module, x[1:])
    torch.testing.assert_close(without[1:], alone, rtol=1e-10, atol=1e-12)


@every_case
@torch.no_grad()
def test_in_float32_it_shows_what_float64_does(name, arguments, device):
    module, x = make(name, device, **arguments), feature_map(name, device)
    exact, wide = copy.deepcopy(module).double(), x.double()
    pairs = [
        (ask(one, x)(), ask(other, wide)())
        for one, other in zip(module.attention_views(), exact.attention_views(), strict=True)
    ]
    pairs.append((without_attention(module, x), without_attention(exact, wide)))
    for found, want in pairs:
        assert (found - want).abs().max() <= 1e-4 * want.abs().max()  # it can be zero


@every_case
@torch.no_grad()
def test_the_attention_makes_a_difference(name, arguments, device):
    module, x = make(name, device, **arguments), feature_map(name, device)
    out = module(x)
    assert not torch.allclose(without_attention(module, x), out, atol=1e-3)
    assert torch.equal(module(x), out)


@every_showing
@torch.no_grad()
def test_attention_that_has_nothing_to_choose_is_like_none(name, device):
    neutral = getattr(own_test(MODULES[name]), "NEUTRAL", {})
    if name not in neutral:
        torch.manual_seed(0)
        module: Any = MODULES[name](IN_CHANNELS).to(device, torch.float64).eval()  # new, as it is made
    else:
        module = make(name, device, torch.float64)
        for parameter in neutral[name] or pytest.skip("no parameters make all weights alike"):
            module.get_parameter(parameter).zero_()
    x = feature_map(name, device, torch.float64)
    torch.testing.assert_close(without_attention(module, x), module(x), rtol=1e-12, atol=1e-13)


@every_showing
def test_an_input_that_it_was_not_made_for_is_named(name):
    module: Any = make(name, "cpu")
    wrong = feature_map(name, "cpu")[:, : IN_CHANNELS // 2]
    for view in module.attention_views():
        with pytest.raises(ValueError, match=f"{name} was made for {IN_CHANNELS} channels"):
            view.begin(wrong)


@every_showing
def test_a_position_outside_the_feature_map_is_named(name):
    module, x = make(name, "cpu"), feature_map(name, "cpu")
    outside = tuple(x.shape[2:])
    for view in module.attention_views():
        if view.kind == "position":
            with pytest.raises(ValueError, match=f"{outside[-1]}.* lies outside .*to {outside[-1] - 1}"):
                view.begin(x)([outside])
