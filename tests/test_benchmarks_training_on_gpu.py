"""The plans that benchmarks of training and of its input carry out on a GPU, on a CPU with tiny networks."""

import dataclasses
import importlib
import json
import math

import pytest
import torch

pytest.importorskip("mmseg")

from benchmarks import input as on_one_core
from benchmarks import input_gpu, training_gpu, ways
from benchmarks.networks import HEADS, Network, read_config, segmentor
from benchmarks.training_gpu import BFLOAT16, FLOAT16, FLOAT32, WAYS

CPU = torch.device("cpu")
TINY, CROP = Network(50, width=4), (32, 64)


@pytest.fixture(scope="module")
def case():
    return training_gpu.Case(TINY, CROP, CPU)


@pytest.mark.slow
def test_plan_is_carried_out(tmp_path, capsys, monkeypatch):
    compiled_with = []  # to trace a ResNet takes half a minute
    monkeypatch.setattr(torch.nn.Module, "compile", lambda _, **options: compiled_with.append(options))
    plan = training_gpu.Plan(
        networks=[
            (TINY, CROP, (FLOAT32, BFLOAT16, FLOAT16)),
            (dataclasses.replace(TINY, head="psanet"), CROP, (FLOAT32,)),
        ],
        compiled=(TINY, CROP, FLOAT32),
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
    assert compiled_with == [dict(backend="inductor", dynamic=False)]


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


@pytest.fixture
def frames(monkeypatch, tmp_path):
    """Four tiny rendered frames below a folder."""
    monkeypatch.setattr(on_one_core, "FRAME", (64, 128))
    monkeypatch.setattr(on_one_core, "CROP", (32, 64))
    on_one_core.rendered_frames(tmp_path / "frames", 4)
    return tmp_path / "frames"


def test_input_of_all_cores_is_measured_beside_the_training_step(frames, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(input_gpu, "numbers_of_workers", lambda cores: [2, 1])
    question = ways.Question("DANet-R50", training_gpu.MODE, "32x64", 2, "bfloat16")
    steps = [ways.Figure(**vars(question), way="danseg", seconds=seconds) for seconds in (1.0, 1e-4, None)]
    about = dict(device="cpu", device_name="one", torch="2")
    ways.save("training", steps, about, tmp_path)
    assert input_gpu.carry_out(frames, CPU, 600, tmp_path, each=0.02)
    capsys.readouterr()
    [stored] = tmp_path.glob("input_cpu-*.json")
    assert not json.loads(stored.read_text())["about"]["failed"]
    found = {(f.mode, f.way): f for f in ways.load(stored)}
    for side in on_one_core.SIDES:
        for workers in ("2 workers", "1 workers"):
            assert found[workers, side].seconds > 0 and found[workers, side].batch == 2
        per_worker = 2 / found["2 workers", side].seconds / 2
        assert f": {math.ceil(2 / 1e-4 / per_worker)} workers needed" in found[training_gpu.MODE, side].note
        assert "20000 images a second" in found[training_gpu.MODE, side].note.replace("2e+04", "20000")
    assert on_one_core.markdown(stored).count("workers needed") == 3


def test_loaders_read_what_their_side_reads(frames):
    for side in on_one_core.SIDES:
        loader = input_gpu.loader_config(frames, side, 3, pinned=True)
        kinds = [one["type"] for one in loader.dataset.pipeline]
        assert kinds[0] == ("LoadImageFromFile" if side == "mmseg" else "LoadTrainingCrop")
        assert loader.dataset.pipeline[0].get("cache", False) == (side == "danseg, cached")
        assert (loader.num_workers, loader.pin_memory, loader.batch_size) == (3, True, 2)


def test_needed_workers_are_not_guessed_without_a_training_step(tmp_path):
    assert input_gpu.eaten(tmp_path, CPU) is None
    question = ways.Question(input_gpu.CASE, "4 workers", "32x64", 2, "uint8")
    [told] = input_gpu.needed([ways.Figure(**vars(question), way="mmseg", seconds=0.25)], None)
    assert told.note.startswith("2 images a second and worker (4 workers); ") and "not measured" in told.note


@pytest.mark.parametrize(("cores", "numbers"), [(16, [15, 1, 8, 4]), (2, [1]), (1, [1]), (5, [4, 1])])
def test_one_core_is_left_to_the_training_process(cores, numbers):
    assert input_gpu.numbers_of_workers(cores) == numbers


@pytest.mark.parametrize("name", ["training", "input"])
def test_a_gpu_that_is_not_there_is_one_message(name, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ending:
        importlib.import_module(f"benchmarks.{name}").main(["--device", "cuda"])
    assert ending.value.code == 1
    assert "--device cuda: this PyTorch sees no CUDA device" in capsys.readouterr().err
