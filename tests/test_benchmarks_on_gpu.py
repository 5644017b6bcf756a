"""What the benchmarks of attention and of heads measure on a GPU: the same code runs here, at tiny sizes."""

import gc
import warnings
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from benchmarks import fastest, kernels, ways
from danseg.engine.measuring import MIB, MeasurementError
from danseg.ops import reference

pytest.importorskip("mmseg")

from benchmarks import attention, attention_gpu, attention_plan, heads  # noqa: E402

CPU = torch.device("cpu")
PLAN = attention_plan.plan()
TINY_PLAN = attention_plan.plan(quick=True)
# One task of each kind, for the operator and for a module with a peer.
KINDS = {
    (task.what, task.mode, task.case): task
    for task in reversed(TINY_PLAN)
    if task.case in (attention_plan.MAIN, "position attention")
}


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Garbage is collected for every way, and the libraries' objects take long to look through."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def measurer(monkeypatch) -> attention_gpu.Measurer:
    monkeypatch.setattr(ways, "ROUND_SECONDS", 0.0)
    return attention_gpu.Measurer(CPU, repeats=1, rates=ways.Rates(CPU), compiler="eager")


def _operands(channels: int, value_channels: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    widths = channels, channels, value_channels
    return [torch.randn(2, width, 24, generator=generator).mT.to(dtype) for width in widths]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels, value_channels", [(64, 512), (256, 256), (512, 256), (256, 512)])
def test_every_kernel_gives_the_equation_or_a_reason(channels, value_channels, dtype, device):
    operands = _operands(channels, value_channels, dtype)
    exact = reference.attention(*(t.double() for t in operands), channels**-0.5)
    operands = [t.to(device) for t in operands]
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    answered = set()
    for name, attend in kernels.uncompiled(channels, value_channels, dtype, thorough=True).items():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                out = attend(*operands, channels**-0.5)
            except MeasurementError as refusal:
                assert len(str(refusal)) > 10 and "disabled" not in str(refusal), name
                assert name.startswith("SDPA") and "math" not in name
                continue
            finally:  # reasons go into the table, not between its lines
                assert not [warning for warning in told if "ttention" in str(warning.message)], name
        answered.add(name)
        assert out.shape == exact.shape and out.dtype == dtype
        assert ways.relative_difference(out.cpu(), exact) < tolerance, name
    assert {"danseg", "plain", "SDPA math, whole", "danseg, blocks of 16 MiB"} <= answered
    if dtype == torch.bfloat16 and (channels, value_channels) == (64, 512):
        assert {"SDPA flash, 8x64 padded", "SDPA flash, 4x128 padded", "SDPA flash, 2x256 padded"} <= answered


def test_likely_kernels_are_some_of_all_and_every_backend_is_among_them():
    for operator in attention_plan.OPERATORS.values():
        widths = operator.channels, operator.value_channels
        every = kernels.uncompiled(*widths, torch.bfloat16, thorough=True)
        likely = kernels.uncompiled(*widths, torch.bfloat16, thorough=False)
        assert likely.keys() < every.keys()
        assert {name.split()[1].rstrip(",") for name in likely if "SDPA" in name} == {*kernels.BACKENDS} - {
            "math"
        }


def test_reasons_leave_out_the_kernels_that_were_switched_off():
    told = [
        "Flash attention kernel not used because: (Triggered internally at x.cpp:9.)",
        "Widths differ: 64 and 512 (Triggered internally at x.cpp:1.)",
        "cuDNN attention has been runtime disabled. (Triggered internally at x.cpp:2.)",
        "Widths differ: 64 and 512 (Triggered internally at x.cpp:1.)",
    ]
    assert kernels._reasons(told) == "Widths differ: 64 and 512"


def test_blocks_hold_the_energies_that_their_name_says(monkeypatch):
    asked = []
    monkeypatch.setattr(
        kernels, "attention", lambda query, key, value, scale, block_size: asked.append(block_size)
    )
    operands = [torch.empty(1, 1024, 8, dtype=torch.bfloat16)] * 3
    kernels.in_blocks(16)(*operands, 1.0)
    assert asked == [16 * MIB // (1024 * 4)]  # energies are in float32


def test_the_plan_has_every_case_and_precision_and_begins_with_the_operator():
    assert PLAN[0].case == attention_plan.MAIN
    planned = {(t.case, t.mode, t.size, t.precision.name) for t in PLAN if t.batch == 1}
    for mode in attention_plan.MODES:
        for case in attention_plan.NAMES:
            for precision in (ways.FLOAT32, ways.BFLOAT16):
                assert (case, mode, attention_plan.CROP, precision.name) in planned
        for case in (attention_plan.MAIN, "position attention"):
            for size in (attention_plan.CROP, attention_plan.FRAME):
                for precision in ways.PRECISIONS:
                    assert (case, mode, size, precision.name) in planned
    names = [task.name for task in PLAN]
    assert len(set(names)) == len(names)
    assert max(task.positions for task in TINY_PLAN) <= 256


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_a_task_of_each_kind_is_measured(kind, measurer):
    task = KINDS[kind]
    figures = measurer.measure(task)
    by_way = {figure.way: figure for figure in figures}
    assert all(figure.note or figure.seconds for figure in figures)
    assert {figure.precision for figure in figures} == {task.precision.name}
    if task.what in (attention_plan.NEW_SIZES, attention_plan.NEW_SIZES_COMPILED):
        measured = [figure for figure in figures if figure.seconds]
        assert {figure.mode for figure in figures} == {attention_gpu.NEW_SIZE[task.mode]}
        assert {figure.size[-3:] for figure in measured} <= {"(1)", "(2)"}
        assert task.what == attention_plan.NEW_SIZES_COMPILED or len(measured) >= 2
        return
    compiled = task.what == attention_plan.COMPILED
    plain = "plain" if task.case == attention_plan.MAIN else "mmseg"
    ours = "danseg" if not compiled or plain == "mmseg" else None
    for name in filter(None, (plain, ours)):
        figure = by_way[f"{name}, compiled" if compiled else name]
        assert figure.product_share > 0 and figure.first_seconds > 0
        exact = task.precision.dtype == torch.float32
        assert figure.difference < (1e-4 if exact else 0.05), (name, figure)


def test_modules_without_a_peer_are_measured_alone(measurer):
    tasks = {task.case: task for task in reversed(TINY_PLAN) if task.what == attention_plan.LIKELY}
    for name, case in attention.CASES.items():
        if case.theirs is None:
            [figure] = measurer.measure(replace(tasks[name], mode=attention.FORWARD, precision=ways.FLOAT32))
            assert figure.way == "danseg" and figure.difference < 1e-4


def test_what_cannot_be_there_is_not_tried(measurer, monkeypatch):
    monkeypatch.setattr(attention_gpu, "available_memory", lambda device: 1000)
    for case, plain in ((attention_plan.MAIN, "plain"), ("position attention", "mmseg")):
        task = next(task for task in TINY_PLAN if task.case == case and task.mode == attention.FORWARD)
        by_way = {figure.way: figure for figure in measurer.measure(task)}
        assert by_way[plain].note.startswith("not tried: it needs about 0.0 GiB")
        assert by_way[plain].seconds is None and by_way["danseg"].seconds


def test_a_result_is_written_summed_up_and_printed_again(measurer, monkeypatch, tmp_path, capsys):
    planned = attention_plan.plan(quick=True)
    two = [task for task in planned if task.case == "position attention"][:2]
    monkeypatch.setattr(attention_gpu, "plan", lambda quick: two)
    args = Namespace(seconds=1000, out=tmp_path, quick=True, cases=None, sizes=None, training_sizes=None)
    attention._on_gpu(args, measurer)
    told = capsys.readouterr().out
    assert "The fastest way" in told and "position attention" in told
    [stored] = tmp_path.glob("attention_cpu-*_quick.json")
    assert len(ways.load(stored)) == 4
    attention.main(["--markdown", str(stored)])
    told = capsys.readouterr().out
    assert "**The fastest way**" in told and "**position attention**" in told


@pytest.mark.parametrize(
    "options, words",
    [
        (["--device", "cpu", "--cases", "attention operator, 256 and 256"], "on a GPU alone"),
        (["--device", "cuda", "--sizes", "9x9"], "for the CPU: on a GPU, choose with --cases"),
    ],
)
def test_options_of_the_other_device_are_refused(options, words, monkeypatch, capsys):
    monkeypatch.setattr(attention, "set_up", lambda args: (torch.device(args.device), 1))
    with pytest.raises(SystemExit) as ending:
        attention.main(options)
    assert ending.value.code == 1
    assert words in capsys.readouterr().err


def test_verdicts_compare_danseg_with_the_fastest_and_with_the_plain_form():
    def figure(way: str, seconds: float | None, extra_bytes: int = 10, size: str = "9x9") -> ways.Figure:
        return ways.Figure("a", "forward", size, 1, "float32", way, seconds, extra_bytes=extra_bytes)

    figures = [
        figure("danseg", 3.0),
        figure("plain", 6.0, 40),
        figure("other", 2.0),
        figure("refused", None),
        figure("danseg", 1.0, size="alone"),
    ]
    [verdict] = fastest.verdicts(figures)
    assert (verdict.fastest.way, verdict.of_fastest, verdict.of_plain) == ("other", 1.5, 0.5)
    assert verdict.memory_of_plain == 0.25
    assert "| other | 2e+03 | 3e+03 | 1.50 | 0.50 |" in fastest.markdown(figures)


def test_compare_takes_the_part_that_the_reference_has_and_a_measurement_errors_words():
    def refuse():
        raise MeasurementError("not tried: too large")

    question = ways.Question("a", "forward", "9x9", 1, "float32")
    calls = {"good": lambda: lambda: torch.tensor([1.0, 9.0]), "bad": refuse}
    good, bad = ways.compare(
        question,
        calls,
        CPU,
        repeats=1,
        reference=lambda: torch.tensor([2.0]),
        compared=lambda out: out[:1],
    )
    assert good.difference == pytest.approx(0.5)
    assert bad.note == "not tried: too large"


@pytest.fixture
def head_jobs(monkeypatch) -> dict[str, ways.Job]:
    monkeypatch.setattr(ways, "ROUND_SECONDS", 0.0)
    return dict(heads.gpu_jobs(list(heads.ARGUMENTS), True, CPU, 1, ways.Rates(CPU)))


def test_every_head_is_trained_on_a_gpu_in_every_precision(head_jobs):
    for name in heads.ARGUMENTS:
        for precision in (heads.AUTOCAST, "float32", "float32, TF32"):
            assert f"{name}, training, 16x16, {precision}" in head_jobs
    assert next(iter(head_jobs)).startswith("DANetHead, training, 16x16, bfloat16")


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), (heads.AUTOCAST, 0.1)])
def test_both_heads_give_the_logits_of_float64(precision, tolerance, head_jobs, monkeypatch):
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)  # each head draws weights of its own
    for name in ("DANetHead", "DNLNetHead"):
        theirs, ours = head_jobs[f"{name}, forward, 16x16, {precision}"]()
        assert (theirs.way, ours.way) == ("mmseg", "danseg")
        assert theirs.difference < tolerance and ours.difference < tolerance
        assert theirs.batch == ours.batch == 2


def test_a_head_that_mmseg_cannot_build_is_measured_alone(head_jobs, monkeypatch):
    build = heads.build

    def refuse(name, side, *rest):
        if side == "theirs":
            raise RuntimeError("no such operator")
        return build(name, side, *rest)

    monkeypatch.setattr(heads, "build", refuse)
    theirs, ours = head_jobs["CCNetHead, training, 16x16, float32"]()
    assert theirs.note == "RuntimeError: no such operator" and theirs.seconds is None
    assert ours.seconds and ours.extra_bytes is not None
