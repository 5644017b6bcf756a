"""The plans that benchmarks of training and of its input carry out on a GPU, on a CPU with tiny networks."""

import dataclasses
import json
import math

import pytest
import torch

pytest.importorskip("mmseg")

from benchmarks import training_gpu, ways
from benchmarks.networks import HEADS, Network, read_config, segmentor
from benchmarks.training_gpu import BFLOAT16, FLOAT16, FLOAT32, WAYS

CPU = torch.device("cpu")
TINY, CROP = Network(50, width=4), (32, 64)


@pytest.fixture(scope="module")
def case():
    return training_gpu.Case(TINY, CROP, CPU)


def test_plan_is_carried_out(tmp_path, capsys):
    plan = training_gpu.Plan(
        networks=[
            (TINY, CROP, (FLOAT32, BFLOAT16, FLOAT16)),
            (dataclasses.replace(TINY, head="psanet"), CROP, (FLOAT32,)),
        ],
        compiled=(TINY, CROP, FLOAT32),
        backend="eager",
        compile_seconds=0,
    )
    training_gpu.carry_out(plan, CPU, 1, 600, tmp_path)
    told = capsys.readouterr().out
    [stored] = tmp_path.glob("training_cpu-*.json")
    assert not json.loads(stored.read_text())["about"]["failed"]
    found = {(f.case, f.precision, f.way): f for f in ways.load(stored)}
    for way in WAYS:
        exact, narrow, half = (found["DANet-R50", one.name, way] for one in (FLOAT32, BFLOAT16, FLOAT16))
        assert exact.seconds > 0 and exact.difference < 1e-5 and exact.batch == 2 and exact.size == "32x64"
        assert "mmseg publishes 7.4 GB" in exact.note
        assert narrow.seconds > 0 and 1e-6 < narrow.difference < 0.1 and narrow.note == ""
        assert half.seconds is None and "needs a GPU" in half.note
    assert "compiled operators" in told or "PSAMask" in found["PSANet-R50", "float32", "mmseg"].note
    assert found["PSANet-R50", "float32", "danseg"].difference < 1e-5
    compiled = found["DANet-R50", "float32", training_gpu.COMPILED]
    assert compiled.seconds > 0 and compiled.difference < 1e-5


def test_compiling_does_not_begin_without_its_time(tmp_path, capsys):
    plan = dataclasses.replace(training_gpu.QUICK, networks=[])
    assert training_gpu.carry_out(plan, CPU, 1, 1, tmp_path) == []
    assert "not measured within 1 s: DANet-R50 128x128 bfloat16, compiled" in capsys.readouterr().out


def test_a_case_that_is_not_there_is_told_the_names(tmp_path):
    with pytest.raises(training_gpu.UserError, match="--cases deeplab: .*DANet-R50 128x128 float32"):
        training_gpu.carry_out(training_gpu.QUICK, CPU, 1, 1, tmp_path, cases=["deeplab"])


def test_a_peak_counts_weights_and_the_optimisers_state(case):
    model = case.model(training_gpu.DANSEGS)
    optimizer = case.optimizer(model, FLOAT32)
    parameters = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert training_gpu._held_bytes(model, optimizer) == 4 * parameters + buffers
    model.train_step(dict(case.data), optimizer)
    assert training_gpu._held_bytes(model, optimizer) == 2 * 4 * parameters + buffers, "with momentum"


def test_all_ways_begin_with_the_same_weights_that_show_the_attention(case):
    states = [case.model(way).state_dict() for way in WAYS]
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], states[0][name]) for name in state)
    assert states[0]["decode_head.pam.gamma.scale"] == states[0]["decode_head.cam.gamma.scale"] == 0.7
    assert hasattr(case.model(training_gpu.DANSEGS).backbone.layer1.forward, "func"), "recomputed"
    assert not hasattr(case.model(training_gpu.KEEPS_ALL).backbone.layer1.forward, "func")


def test_the_plan_names_every_network_with_its_published_peak():
    networks = {(network.head, network.recipe, network.depth) for network, _, _ in training_gpu.FULL.networks}
    published = {(*key, depth) for key, of in training_gpu.PUBLISHED_GB.items() for depth in of}
    assert networks == published and {head for head, _, _ in networks} == set(HEADS)
    for network, size, _ in training_gpu.FULL.networks:
        assert network.path.is_file() and size is None
    first = [network for network, _, _ in training_gpu.FULL.networks[:2]]
    assert [one.name for one in first] == ["DANet-R50"] * 2


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("recipe", training_gpu.RECIPES)
def test_networks_are_those_of_the_configs(head, recipe):
    network = Network(50, width=4, head=head, recipe=recipe)
    model = segmentor(network, network.types("danseg"), 0.0, (32, 64))
    config = read_config(network).model
    assert type(model.decode_head).__name__ == config.decode_head.type
    assert model.align_corners == config.decode_head.align_corners == (recipe == "cityscapes")
    assert (
        model.decode_head.conv_seg.in_channels == 32 and model.num_classes == config.decode_head.num_classes
    )
    if head == "psanet":
        with pytest.raises(RuntimeError, match="PSAMask"):
            segmentor(network, network.types("mmseg"))
    else:
        theirs = segmentor(network, network.types("mmseg"), 0.0, (32, 64))
        assert [*theirs.state_dict()] == [*model.state_dict()]
        assert theirs.align_corners == model.align_corners


def test_precisions_set_pytorchs_switches_and_put_them_back():
    switches = lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)  # noqa: E731
    before, seen = switches(), {}
    for precision in training_gpu.PRECISIONS:
        with precision.on():
            seen[precision.name] = switches()
    assert switches() == before == (False, True) == seen["float32, TF32 convolutions"], "PyTorch's default"
    assert seen["float32"] == (False, False) and seen["float32, TF32"] == (True, True)
    assert math.prod(map(len, seen)) > 0
