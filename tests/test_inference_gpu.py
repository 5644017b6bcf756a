"""The benchmark of inference on a GPU, on a CPU with tiny networks: every way runs, or says what it needs."""

import json
from dataclasses import replace

import pytest
import torch

pytest.importorskip("mmseg")

from benchmarks import inference, inference_gpu, ways  # noqa: E402
from benchmarks.cuda_graphs import Graph  # noqa: E402
from benchmarks.inference_gpu import CASES, COMPILED, FULL, LARGE, QUICK  # noqa: E402
from benchmarks.ways import BFLOAT16, TF32, Rates  # noqa: E402
from danseg.errors import UserError  # noqa: E402

CPU = torch.device("cpu")
TINY = replace(
    QUICK,
    frames=replace(
        QUICK.frames,
        networks=QUICK.frames.networks[:2],
        frame=(64, 96),
        crop=64,
        stride=32,
        tile=64,
        overlap=16,
        backend="eager",
    ),
    precisions=(BFLOAT16, TF32),
)


@pytest.fixture
def swift(monkeypatch):
    """One call a way, its memory unread: to collect garbage takes longer than the rest."""
    monkeypatch.setattr(ways, "_free", lambda device: None)
    monkeypatch.setattr(ways, "extra_peak", lambda call, device: 0)
    monkeypatch.setattr(ways, "ROUND_SECONDS", 0)
    monkeypatch.setattr(ways, "WAY_SECONDS", 0)
    monkeypatch.setattr(Rates, "__getitem__", lambda self, precision: 1e12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")
def test_every_way_runs_or_says_what_it_needs(swift, device, tmp_path, capsys):
    jobs = inference_gpu.jobs(TINY, device, Rates(device), 1000, CASES)
    figures = ways.carry_out("inference", jobs, device, 1000, tmp_path)
    assert "failed: " not in capsys.readouterr().out
    [stored] = tmp_path.glob(f"inference_{device.type}-*.json")
    assert ways.load(stored) == figures and json.loads(stored.read_text())["about"]["left_out"] == []
    graphs = [figure for figure in figures if figure.way.endswith("CUDA graph")]
    assert len(graphs) > 10
    # Before it computes, the loss waits for the GPU once, to refuse labels that are no class.
    captured = [] if device.type == "cpu" else [one for one in graphs if one.case != inference_gpu.LOSS_CASE]
    notes = {"UserError: CUDA graphs need a GPU", "RuntimeError: called a synchronizing CUDA operation"}
    refused = [one for one in graphs if one not in captured]
    assert {one.note for one in refused} <= notes and not any(one.seconds for one in refused)
    without_files = [one for one in figures if one not in graphs and "tiles of" not in one.case]
    for one in captured + without_files:
        assert one.seconds and not one.note, one
        assert one.difference is not None
        assert one.difference < (0.2 if one.precision == "bfloat16" else 1e-2 if captured else 1e-3), one
    named = {figure.case for figure in figures}
    assert {"frames to labels", "logits to labels", "frames to labels, windows of 64"} < named
    assert {figure.batch for figure in figures if figure.case == "frames to labels"} == {1, 2}


def test_labels_of_another_network_would_be_seen(swift):
    network = inference_gpu.Network(TINY.frames.networks[0], TINY.frames, CPU)
    network.theirs().decode_head.conv_seg.weight.data.neg_()
    *_, ours = (f for f in network.to_labels(TF32, 1, Rates(CPU)) if f.way == "danseg")
    assert ours.difference > 0.5


def test_cases_choose_jobs_and_all_together_are_everything():
    rates = Rates(CPU)
    each = [[name for name, _ in inference_gpu.jobs(FULL, CPU, rates, 80, [case])] for case in CASES]
    together = [name for name, _ in inference_gpu.jobs(FULL, CPU, rates, 80, CASES)]
    assert all(each) and sorted(together) == sorted(sum(each, []))
    assert together[-2:] == each[CASES.index(COMPILED)], "compiling takes longest, and comes last"


def test_a_network_is_not_compiled_where_the_time_is_short(tmp_path, capsys):
    jobs = inference_gpu.jobs(TINY, CPU, Rates(CPU), 10, [COMPILED])
    assert ways.carry_out("inference", jobs, CPU, 10, tmp_path) == []
    assert "compiling takes about 40 s, and fewer are left" in capsys.readouterr().out


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
def test_configs_of_the_plans_exist(plan):
    for config in plan.frames.networks:
        network = inference_gpu.Network(config, plan.frames, CPU)
        assert network.config.is_file()


def test_a_case_of_another_device_is_refused(capsys):
    with pytest.raises(SystemExit):
        inference.main(["--device", "cpu", "--cases", LARGE])
    assert "'image to labels', 'logits to labels'" in capsys.readouterr().err


def test_a_graph_replays_what_was_captured(device):
    x = torch.arange(4.0).to(device)
    if device.type == "cpu":
        with pytest.raises(UserError, match="CUDA graphs need a GPU"):
            Graph(torch.exp, x)
        return
    call = Graph(torch.exp, x)
    x += 1
    torch.testing.assert_close(call().cpu(), torch.arange(1.0, 5.0).exp())
    assert call.pool_bytes > 0
