"""Figures of a network against closed forms and counts taken apart, and what happens where a side fails."""

import json
import os

import pytest
import torch
from torch import nn

from danseg.apis import latency, load_model, prepare_for_inference
from danseg.apis.counterpart import counterpart
from danseg.errors import UserError
from danseg.ops import attention

SIZE = (40, 48)


@pytest.fixture
def config(make_config, tmp_path):
    config = make_config("unused", head=dict(type="DANetHead", pam_channels=4))
    config.model.type = "LeanEncoderDecoder"
    config._cfg_dict["crop_size"] = SIZE
    return config


@pytest.fixture
def without_memory(monkeypatch):
    """Memory is not measured, which saves a process and its imports."""
    monkeypatch.setattr(latency, "in_subprocess", lambda function, *args: 0)


def test_parameters_and_weights_are_those_of_the_networks_that_run(config, without_memory):
    found = latency.measure_latency(config, device="cpu", repeats=1)
    model = load_model(config, None, "cpu")
    for side, network in ((latency.OURS, prepare_for_inference(model)), (latency.THEIRS, counterpart(model))):
        assert found.sides[side].parameters == sum(one.numel() for one in network.parameters()) > 0
        numbers = [*network.parameters(), *network.buffers()]
        assert found.sides[side].weights_bytes == sum(one.nbytes for one in numbers)
    assert found.sides[latency.OURS].parameters < found.sides[latency.THEIRS].parameters, "norms are folded"


def test_operations_are_those_of_convolutions_and_attention(config, without_memory):
    """2 operations a multiply-add: weights x positions, N x N x channels, C x C x N."""
    network, expected = prepare_for_inference(load_model(config, None, "cpu")), 0

    def count(conv: nn.Conv2d, args: tuple, out: torch.Tensor) -> None:
        nonlocal expected
        expected += 2 * conv.weight.numel() * out[0, 0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.groups == 1
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, *SIZE), mode="tensor")
    positions = SIZE[0] // 8 * SIZE[1] // 8
    pam, cam = 2 * positions**2 * (4 + 16), 2 * 2 * 16**2 * positions
    for batch in (1, 3):
        found = latency.measure_latency(config, device="cpu", repeats=1, batch=batch)
        assert found.sides[latency.OURS].flops == expected + pam + cam
        assert found.sides[latency.THEIRS].flops > expected + pam + cam, "it computes all three classifiers"


def test_operations_of_one_convolution_and_of_one_attention():
    for call, expected in (
        (lambda: nn.Conv2d(3, 5, 3, padding=1)(torch.zeros(2, 3, 7, 9)), 2 * 2 * 3 * 5 * 9 * 7 * 9),
        (
            lambda: attention(torch.ones(2, 7, 3), torch.ones(2, 9, 3), torch.ones(2, 9, 5)),
            2 * 2 * 7 * 9 * 8,
        ),
    ):
        with latency.FlopCounterMode(display=False) as counter:
            call()
        assert counter.get_total_flops() == expected


def test_sides_take_turns_after_the_warm_up(config, without_memory, monkeypatch):
    """By a clock that only calls move: danseg's take 2 seconds, and mmseg's 8."""
    now, turns = 0.0, []
    real = latency._call

    def call(task, network, side, size=None):
        compute = real(task, network, side, size)

        def timed():
            nonlocal now
            turns.append(side)
            now += {latency.OURS: 2, latency.THEIRS: 8}[side]
            return compute()

        return timed

    monkeypatch.setattr(latency, "_call", call)
    monkeypatch.setattr("danseg.engine.measuring.time.perf_counter", lambda: now)
    found = latency.measure_latency(config, device="cpu", repeats=4)
    ours, theirs = latency.OURS, latency.THEIRS
    assert turns[-8:] == [ours, theirs] * 4
    before = turns[:-8]
    assert before[-latency.WARM_UP :] == [ours] * latency.WARM_UP
    assert before[: -latency.WARM_UP][-latency.WARM_UP :] == [theirs] * latency.WARM_UP
    assert (found.sides[ours].rounds, found.sides[theirs].rounds) == ([2] * 4, [8] * 4)
    assert found.time_ratio == 0.25 and found.as_dict()["sides"][ours]["images_per_second"] == 0.5


def test_median_and_quartiles():
    of_one = latency.Figures([1.0, 2.0, 3.0, 4.0, 50.0], 0, 0, 0, 0)
    assert (of_one.seconds, of_one.quartiles) == (3.0, (2.0, 4.0))
    assert latency.Figures([7.0], 0, 0, 0, 0).quartiles == (7.0, 7.0)


def test_in_16_bits_mmseg_computes_under_autocast(config, without_memory, monkeypatch):
    seen = {}
    real = latency._network

    def network(task, model, side):
        found = real(task, model, side)
        conv = found.backbone.layer4[0].conv1
        conv.register_forward_hook(lambda *args: seen.update({side: args[-1].dtype}))
        return found

    monkeypatch.setattr(latency, "_network", network)
    latency.measure_latency(config, device="cpu", repeats=1, precision="bfloat16")
    assert seen == {latency.OURS: torch.bfloat16, latency.THEIRS: torch.bfloat16}


def test_want_of_memory_on_mmsegs_side_is_a_line(config, without_memory, monkeypatch):
    monkeypatch.setattr(latency, "counterpart", _lacks_memory)
    found = latency.measure_latency(config, device="cpu", repeats=1)
    assert found.sides.keys() == {latency.OURS} and found.time_ratio is None
    assert "not compared with mmseg: this run needs more memory than the machine has free" in found.notes[-1]
    assert json.loads(json.dumps(found.as_dict()))["time_ratio"] is None


def test_want_of_memory_in_the_timed_calls_of_mmseg_is_one_too(config, without_memory, monkeypatch):
    real = latency._warm
    monkeypatch.setattr(
        latency, "_warm", lambda call: _lacks_memory() if "theirs" in str(call) else real(call)
    )
    found = latency.measure_latency(config, device="cpu", repeats=1)
    assert found.sides.keys() == {latency.OURS} and len(found.sides[latency.OURS].rounds) == 1


def test_want_of_memory_on_danseg_side_says_what_to_do(config, monkeypatch):
    monkeypatch.setattr(latency, "in_subprocess", _lacks_memory)
    with pytest.raises(UserError, match=r"take a smaller image \(--size\)"):
        latency.measure_latency(config, device="cpu", repeats=1)


def test_a_process_that_is_killed_for_memory_says_it_too(config, monkeypatch):
    def killed(*args):
        raise latency.MeasurementError("the measuring process ended with status -9")

    monkeypatch.setattr(latency, "in_subprocess", killed)
    with pytest.raises(UserError, match=r"status -9. To need less, take a smaller image \(--size\)"):
        latency.measure_latency(config, device="cpu", repeats=1)


def _lacks_memory(*args):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def test_a_size_is_needed_where_the_config_says_none(config):
    del config._cfg_dict["crop_size"]
    with pytest.raises(UserError, match="no crop_size: give the images' --size HEIGHT WIDTH"):
        latency.measure_latency(config, device="cpu")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="reads the peak from /proc")
def test_memory_of_a_call_is_seen_in_a_process_of_its_own(config):
    """mmseg holds N x N energies and their softmax; danseg less than one of them."""
    found = latency.measure_latency(config, device="cpu", repeats=1, size=(512, 512))
    one = 4 * (512 // 8) ** 4
    assert found.sides[latency.THEIRS].memory_bytes > 2 * one > 2 * found.sides[latency.OURS].memory_bytes > 0
