import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import danseg.attention
from danseg.attention import (
    ChannelAttention,
    DualAttention,
    PointwiseSpatialAttention,
    PositionAttention,
)
from danseg.errors import UserError
from danseg.visualization.attention_recording import (
    AttentionMaps,
    Placement,
    attention_modules,
    record_attention,
    segment_centres,
)

NAMES = danseg.attention.__all__


def _module() -> PositionAttention:
    torch.manual_seed(0)
    module = PositionAttention(8, 4).double()
    nn.init.constant_(module.gamma.scale, 0.7)
    return module


def test_only_modules_with_maps_of_positions_are_found():
    model = nn.ModuleDict({"dual": DualAttention(8), "cam": ChannelAttention(8), "conv": nn.Conv2d(8, 8, 1)})
    assert list(attention_modules(model)) == ["dual.pam"]


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
    rows = recorded["2"].rows([(0, 6), (4, 1)])
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


@pytest.mark.parametrize(
    ("position", "cell"),
    [((0, 0), (0, 0)), ((199, 99), (12, 24)), ((100, 49), (6, 12)), ((8, 0), (0, 1)), ((7, 8), (1, 0))],
)
def test_a_pixel_falls_into_the_cell_that_holds_it(position, cell):
    placement = Placement((100, 200), (100, 200), (100, 200))
    assert placement.cell(position, (13, 25)) == cell  # cells of 100/13 x 8 pixels


def test_positions_follow_resize_and_padding():
    # 100 x 200 pixels are enlarged to 50 x 300 and lie at row 10, column 40 of a 80 x 400 input.
    placement = Placement((100, 200), (80, 400), (50, 300), offset=(10, 40))
    assert placement.cell((0, 0), (80, 400)) == (10, 40)
    assert placement.cell((199, 99), (80, 400)) == (59, 339)
    assert placement.cell((100, 50), (8, 10)) == (3, 4)  # input pixel (35.25, 190.75)


@pytest.mark.parametrize("position", [(200, 0), (0, 100), (-1, 0), (0, -1)])
def test_positions_outside_the_image_are_refused(position):
    placement = Placement((100, 200), (100, 200), (100, 200))
    with pytest.raises(ValueError, match=f"x={position[0]}, y={position[1]} .*0 to 199.*0 to 99"):
        placement.cell(position, (10, 10))


def test_a_map_is_brightest_where_its_cell_lies_in_the_image():
    placement = Placement((96, 64), (160, 192), (120, 80), offset=(32, 96))
    for position in [(40, 20), (12, 70)]:
        row, column = placement.cell(position, (20, 24))
        rows = np.zeros((1, 20, 24), dtype=np.float32)
        rows[0, row, column] = 1
        heat = AttentionMaps("pam", [position], rows, placement).over_image()
        assert heat.shape == (1, 96, 64)
        y, x = np.unravel_index(heat[0].argmax(), heat[0].shape)
        # A cell is 8 input pixels, 6.4 image pixels: the brightest pixel is within half of it.
        assert abs(x - position[0]) <= 4 and abs(y - position[1]) <= 4


def test_uniform_attention_is_one_everywhere():
    placement = Placement((30, 50), (32, 64), (30, 50))
    maps = AttentionMaps("pam", [(0, 0)], np.full((1, 4, 8), 1 / 32), placement)
    np.testing.assert_allclose(maps.over_image(), np.ones((1, 30, 50)), rtol=1e-6)


def test_centres_lie_inside_the_largest_segments_of_different_classes():
    labels = np.zeros((40, 60), dtype=np.int64)
    labels[:, 30:] = 1  # two halves of the same size
    labels[5:15, 5:15] = 2
    labels[20:24, 40:44] = 3
    labels[30:39, 45:54] = 2
    centres = segment_centres(labels, 3)
    found = [int(labels[y, x]) for x, y in centres]
    assert sorted(found[:2]) == [0, 1] and found[2] == 2
    x, y = centres[2]
    assert 8 <= x <= 11 and 8 <= y <= 11  # the larger of the two regions of class 2


def test_the_edge_of_the_image_ends_a_segment():
    labels = np.zeros((40, 60), dtype=np.int64)
    labels[:, 32:] = 1
    (x, y), (other_x, other_y) = segment_centres(labels, 2)
    assert abs(x - 15.5) <= 1 and abs(y - 19.5) <= 4.5
    assert abs(other_x - 45.5) <= 1 and abs(other_y - 19.5) <= 6.5


def test_the_middle_of_a_ring_is_on_the_ring():
    labels = np.zeros((41, 41), dtype=np.int64)
    labels[3:38, 3:38] = 1
    labels[12:29, 12:29] = 0
    for x, y in segment_centres(labels, 2):
        assert not (x == 20 and y == 20) or labels[y, x] == 0
    found = {int(labels[y, x]) for x, y in segment_centres(labels, 2)}
    assert found == {0, 1}


def test_few_classes_give_further_segments_and_never_more_than_there_are():
    labels = np.zeros((20, 30), dtype=np.int64)
    labels[:, 10:12] = 1
    assert len(segment_centres(labels, 3)) == 3
    assert len(segment_centres(labels, 9)) == 3
    assert segment_centres(np.zeros((9, 9), dtype=np.int64), 5) == [(4, 4)]


def test_a_model_without_maps_is_refused_with_the_modules_that_have_them():
    maps = {name: getattr(getattr(danseg.attention, name), "attention_map", None) for name in NAMES}
    able = [name for name in NAMES if maps[name] and "positions" in maps[name].__annotations__]
    assert "PositionAttention" in able and "CBAM" not in able
    with pytest.raises(UserError) as error, record_attention(nn.Sequential(ChannelAttention(8))):
        raise AssertionError("the block must not begin")
    assert "Sequential has no attention of single positions" in str(error.value)
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
    module = PointwiseSpatialAttention(8, mask_size=(3, 5)).to(device).train()
    x = torch.randn(2, 8, 6, 10).to(device)
    with record_attention(module) as recorded:
        module(x)
    before = copy.deepcopy(module.state_dict())
    expected = copy.deepcopy(module).attention_map(x, [(0, 3)])
    assert torch.equal(recorded[""].rows([(0, 3)]), expected)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(("positions", "shape"), [([], (0, 4, 8)), ([(0, 0)], (2, 4, 8)), ([(0, 0)], (4, 8))])
def test_no_maps_are_no_attention_maps(positions, shape):
    with pytest.raises(ValueError, match="at least one position"):
        AttentionMaps("pam", positions, np.zeros(shape), Placement((30, 50), (32, 64), (30, 50)))


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
