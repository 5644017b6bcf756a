import asyncio
import copy
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import danseg.attention
from danseg.attention import ChannelAttention, DualAttention, PositionAttention
from danseg.attention.parts.views import ShowsAttention, View
from danseg.errors import UserError
from danseg.visualization.attention_recording import attention_modules, record_attention

NAMES = danseg.attention.__all__


def _module() -> PositionAttention:
    torch.manual_seed(0)
    module = PositionAttention(8, 4).double()
    nn.init.constant_(module.gamma.scale, 0.7)
    return module


class Counting(ShowsAttention, nn.Module):
    """Two views, one behind a batch norm, which count how often they were begun."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.begun = nn.BatchNorm2d(8), []

    def forward(self, x):
        return self.norm(x)

    def attention_views(self):
        def maps(x):
            self.begun.append("maps")
            gate = self.norm(x)
            return lambda: gate

        def channels(x):
            self.begun.append("channels")
            return lambda: x.mean((2, 3))[:, None]

        return View("everywhere", maps, values="gate"), View("channels", channels, "means", "weights")


def test_modules_with_something_to_show_are_found():
    model = nn.ModuleDict({"dual": DualAttention(8), "cam": ChannelAttention(8), "conv": nn.Conv2d(8, 8, 1)})
    assert list(attention_modules(model)) == ["dual.pam", "dual.cam", "cam"]


def test_recorded_rows_are_those_of_the_softmax_map(device):
    module = _module()
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1).double(), nn.ReLU(), module).to(device)
    image = torch.randn(2, 3, 10, 14, dtype=torch.float64).to(device)
    with record_attention(model) as recorded, torch.no_grad():
        model(image)
    assert list(recorded) == ["2"]
    assert recorded["2"].map_size == (5, 7)
    assert recorded["2"].scale == 0.7
    with torch.no_grad():
        x = model[1](model[0](image))
        query = module.query_project(x).flatten(2)
        key = module.key_project(x).flatten(2)
        whole = torch.softmax(torch.einsum("bcn,bcm->bnm", query, key), dim=-1)  # (B, N, N)
    rows = recorded["2"].show([(0, 6), (4, 1)])
    assert rows.shape == (2, 2, 5, 7) and rows.device == device
    torch.testing.assert_close(rows, whole[:, [6, 29]].unflatten(2, (5, 7)))
    torch.testing.assert_close(rows.sum((2, 3)).cpu(), torch.ones(2, 2, dtype=torch.float64))


def test_recording_changes_nothing_and_ends_with_the_block(device):
    model = nn.Sequential(_module()).to(device)
    x = torch.randn(1, 8, 3, 5, dtype=torch.float64).to(device)
    before = model(x)
    with record_attention(model) as recorded:
        torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    kept = recorded["0"].x
    model(x + 1)
    assert recorded["0"].x is kept
    assert not model[0]._forward_pre_hooks


def test_the_last_run_is_kept_and_an_error_takes_the_hooks_off():
    model = nn.Sequential(_module())
    x = torch.randn(1, 8, 3, 5, dtype=torch.float64)
    with record_attention(model) as recorded, pytest.raises(ZeroDivisionError):
        model(x)
        model(x * 2)
        raise ZeroDivisionError
    assert torch.equal(recorded["0"].x, x * 2)
    with pytest.raises(ZeroDivisionError), record_attention(model):
        raise ZeroDivisionError
    assert not model[0]._forward_pre_hooks


def test_a_view_is_begun_once_and_asked_by_its_name():
    module, x = Counting().eval(), torch.randn(2, 8, 3, 5)
    with record_attention(module) as recorded:
        module(x)
    one = recorded[""]
    assert list(one.views) == ["", "means"]
    for _ in range(2):
        torch.testing.assert_close(one.show(view="means"), x.mean((2, 3))[:, None])
        torch.testing.assert_close(one.show(), module.norm(x))
        one.show([(7, 7)])  # positions are for views of positions
    assert module.begun == ["channels", "maps"]


def test_threads_that_ask_at_the_same_time_begin_a_view_once():
    class Slow(Counting):
        def attention_views(self):
            def begin(x):
                time.sleep(0.05)
                self.begun.append("slow")
                return lambda: x

            return (View("everywhere", begin, values="weights"),)

    module, x = Slow().eval(), torch.randn(2, 8, 3, 5)
    with record_attention(module) as recorded:
        module(x)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(one, x) for one in pool.map(lambda _: recorded[""].show(), range(4)))
    assert module.begun == ["slow"]


def test_what_is_asked_later_is_of_the_weights_of_the_first_question():
    module, x = _module(), torch.randn(1, 8, 3, 5, dtype=torch.float64)
    with record_attention(module) as recorded:
        module(x)
    first = recorded[""].show([(0, 3)])
    module.requires_grad_(False).key_project.weight.mul_(3)
    assert torch.equal(recorded[""].show([(0, 3)]), first)


def test_a_model_without_attention_is_refused_with_the_modules_that_have_it():
    able = [name for name in NAMES if issubclass(getattr(danseg.attention, name), ShowsAttention)]
    assert "PositionAttention" in able and "ChannelAttention" in able
    with pytest.raises(UserError) as error, record_attention(nn.Sequential(nn.Conv2d(8, 8, 1))):
        raise AssertionError("the block must not begin")
    assert "Sequential has no attention to show" in str(error.value)
    assert all(name in str(error.value) for name in able)


def test_a_block_in_which_nothing_ran_is_an_error_but_hides_none():
    model = nn.ModuleDict({"pam": _module()})
    with pytest.raises(UserError, match="none of the modules that record attention ran: pam"):
        with record_attention(model):
            pass
    with pytest.raises(ZeroDivisionError), record_attention(model):
        raise ZeroDivisionError
    assert not model["pam"]._forward_pre_hooks


def test_what_runs_in_another_thread_is_not_recorded():
    model = nn.Sequential(_module())
    x = torch.randn(1, 8, 3, 5, dtype=torch.float64)
    with ThreadPoolExecutor(1) as pool, record_attention(model) as recorded:
        model(x)
        pool.submit(model, x + 1).result()
    assert torch.equal(recorded["0"].x, x)


def test_tasks_that_take_turns_record_their_own_runs():
    model = nn.Sequential(_module())
    images = torch.randn(3, 1, 8, 3, 5, dtype=torch.float64)

    async def task(image):
        with record_attention(model) as recorded:
            await asyncio.sleep(0)
            await asyncio.to_thread(model, image)
            await asyncio.sleep(0)
        return recorded["0"].x

    async def tasks():
        return await asyncio.gather(*map(task, images))

    assert all(torch.equal(x, image) for x, image in zip(asyncio.run(tasks()), images, strict=True))


def test_a_thread_may_run_the_model_while_another_begins_to_record():
    """PyTorch adds a hook, and only then notes that it takes named arguments."""
    model, image = _module(), torch.randn(1, 8, 3, 5, dtype=torch.float64)
    with record_attention(model) as recorded:
        [noted] = model._forward_pre_hooks_with_kwargs.items()
        model._forward_pre_hooks_with_kwargs.clear()
        model(image)
        model._forward_pre_hooks_with_kwargs.update([noted])
    assert torch.equal(recorded[""].x, image)


def test_an_input_that_is_changed_later_or_passed_by_name():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pam = _module()

        def forward(self, x):
            x += self.pam(x=x)
            return x

    x, model = torch.randn(1, 8, 3, 5, dtype=torch.float64), Residual()
    with record_attention(model) as recorded, torch.no_grad():
        model(x.clone())
    assert torch.equal(recorded["pam"].x, x)


def test_maps_of_a_model_in_training_do_not_touch_its_statistics(device):
    module = Counting().to(device).train()
    x = torch.randn(2, 8, 6, 10).to(device)
    with record_attention(module) as recorded:
        module(x)
    before = copy.deepcopy(module.state_dict())
    expected = copy.deepcopy(module).norm(x)
    assert torch.equal(recorded[""].show(), expected)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_compiled_code_is_not_recorded_neither_in_the_block_nor_after_it():
    model = nn.Sequential(_module())
    x = torch.randn(1, 8, 3, 5, dtype=torch.float64)
    compiled = torch.compile(model, backend="eager")
    with pytest.raises(UserError, match=r"none .* ran: _orig_mod\.0\..*not compiled"):
        with record_attention(compiled) as recorded:
            compiled(x)
    compiled(x)
    assert not recorded
    with record_attention(model) as recorded:
        model(x)
    compiled(x + 1)
    assert torch.equal(recorded["0"].x, x)
