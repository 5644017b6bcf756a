"""The benchmarks' figures are only worth their measuring core: it must see what is known to be there."""

import json
import math

import pytest
import torch

import danseg.attention
from benchmarks import measure, report
from danseg.engine.measuring import MIB

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny work, also in the subprocesses, which take over the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def attention():
    """The module, which needs the peer that it compares with."""
    pytest.importorskip("mmseg")
    from benchmarks import attention

    return attention


def test_product_rate_counts_the_operations_of_the_faster_product(monkeypatch):
    # Half a second for one product of 2 * 64**3 operations, a quarter for the other.
    monkeypatch.setattr(
        measure, "alternate", lambda calls, repeats, device: [[0.5] * repeats, [0.25] * repeats]
    )
    assert measure.product_rate(CPU, size=64) == pytest.approx(2 * 64**3 / 0.25)


def test_product_rate_is_within_reach_of_a_machine():
    assert 1e7 < measure.product_rate(CPU, size=256) < 1e15


def test_difference_sees_wrong_and_missing_numbers(attention):
    reference = torch.tensor([1.0, -4.0])
    assert attention._relative_difference(reference, torch.tensor([2.0, -4.0])) == pytest.approx(0.25)
    assert math.isnan(attention._relative_difference(reference, torch.tensor([float("nan"), -4.0])))


def test_both_sides_have_equal_weights_and_a_scale_that_shows_the_attention(attention):
    for case in filter(lambda case: case.theirs, attention.CASES.values()):
        theirs, ours = attention.equal_modules(case, CPU, ["theirs", "ours"])
        for name, parameter in theirs.named_parameters():
            assert torch.equal(ours.state_dict()[name], parameter)
        x, _ = attention.inputs(case, (5, 7), attention.FORWARD, CPU)
        with torch.no_grad():
            assert not torch.allclose(theirs(x), x, atol=1e-2)


@pytest.mark.slow
def test_quick_benchmark_runs_and_writes_its_files(attention, tmp_path, capsys):
    case = "position attention"
    options = ["--sizes", "9x11", "--repeats", "2", "--device", "cpu", "--out", str(tmp_path)]
    attention.main(["--quick", "--cases", case, *options])
    table = capsys.readouterr().out
    assert "9x11" in table and "danseg" in table

    [stored] = tmp_path.glob("attention_cpu-*_torch*_mmseg*_quick.json")
    assert torch.__version__.split("+")[0] in stored.name
    content = json.loads(stored.read_text())
    assert content["about"]["repeats"] == 2
    assert [row["mode"] for row in content["rows"]] == ["forward", "training"]
    for row in content["rows"]:
        assert (row["case"], row["size"], row["positions"], row["note"]) == (case, "9x11", 99, "")
        assert row["max_relative_error"] < 1e-4
        assert len(row["theirs_rounds"]) == len(row["ours_rounds"]) == 2
        assert row["time_ratio"] == pytest.approx(row["ours_seconds"] / row["theirs_seconds"])
        assert 0 < row["floor_seconds"] < row["ours_seconds"]

    lines = stored.with_suffix(".csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("case,mode,size,positions,theirs_seconds")
    assert stored.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    attention.main(["--markdown", str(stored)])
    assert "| training | 9x11 |" in capsys.readouterr().out


@pytest.mark.slow
def test_both_sides_of_every_case_agree(attention):
    for case in attention.CASES.values():
        for mode in {attention.FORWARD, attention.TRAINING} - set(case.cannot):
            _, _, error = attention.measure_time(case.name, ["theirs", "ours"], mode, (9, 11), "cpu", 1)
            assert error < 1e-3, (case.name, mode)


@pytest.mark.slow
def test_a_size_that_cannot_fit_is_skipped_with_its_reason(attention, monkeypatch):
    monkeypatch.setattr(attention, "available_memory", lambda device: 2**20)
    [row] = attention.compare(
        attention.CASES["position attention"], attention.FORWARD, (9, 11), CPU, repeats=1
    )
    assert row.note == "mmseg skipped: it needs about 0.0 GiB, of which 0.0 GiB are available"
    assert row.theirs_seconds is None and row.memory_ratio is None and row.time_ratio is None
    assert row.ours_seconds > 0


@pytest.mark.slow
def test_what_the_peer_cannot_do_is_left_out_with_the_reason(attention):
    assert "cannot be trained" in attention.CASES["non-local, concatenation"].cannot[attention.TRAINING]
    for case in filter(lambda case: case.cannot, attention.CASES.values()):
        for mode, reason in case.cannot.items():
            [row] = attention.compare(case, mode, (9, 11), CPU, repeats=1)
            assert row.note == reason
            assert row.theirs_seconds is None and row.theirs_extra_bytes is None
            assert row.ours_seconds > 0 and row.floor_seconds > 0


def test_promises_name_what_is_measured(attention):
    for case, mode, size in attention.PROMISES:
        assert size in [report.size_name(one) for one in attention.CASES[case].sizes[mode]]


def test_promises_are_judged_in_time_and_memory():
    promises = {("a", "forward", "97x97"): report.Promise(time=0.9, memory=0.12)}

    def verdict(time_ratio: float | None, memory_ratio: float | None) -> str:
        row = report.Row("a", "forward", "97x97", time_ratio=time_ratio, memory_ratio=memory_ratio)
        [line] = report.promises_kept([row], promises)
        return line.split(":")[0]

    assert verdict(0.9, 0.11) == "kept"
    assert verdict(0.9, None) == "kept"
    assert verdict(0.91, 0.11) == "MISSED"
    assert verdict(0.9, 0.13) == "MISSED"
    assert report.promises_kept([report.Row("b", "forward", "97x97", time_ratio=2.0)], promises) == []


def test_promises_are_judged_by_the_share_of_the_product_rate():
    promises = {("a", "forward", "97x97"): report.Promise(product_share=0.75)}
    for seconds, verdict in ((1.0, "kept: forward 97x97: 0.75 of"), (1.1, "MISSED: forward 97x97: 0.68 of")):
        row = report.Row("a", "forward", "97x97", floor_seconds=0.75, ours_seconds=seconds)
        [line] = report.promises_kept([row], promises)
        assert line.startswith(verdict)


def test_a_note_stands_once_after_the_rows_that_it_is_about():
    rows = [report.Row("a", "forward", size, note="too large") for size in ("65x65", "97x97")]
    text = report.markdown([*rows, report.Row("a", "training", "65x65", note="not there")], {})
    assert "- forward 65x65, forward 97x97: too large\n- training 65x65: not there" in text


@pytest.mark.parametrize("size", ["97", "97x", "0x5", "axb", "1x2x3"])
def test_a_malformed_size_is_refused(attention, size, capsys):
    with pytest.raises(SystemExit):
        attention.main(["--sizes", size])
    assert "a size is HEIGHTxWIDTH, for example 97x97" in capsys.readouterr().err


def test_markdown_of_a_file_that_is_no_result_is_one_message(attention, tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(SystemExit) as ending:
        attention.main(["--markdown", str(path)])
    assert ending.value.code == 1
    assert "give a .json file that a benchmark wrote" in capsys.readouterr().err


@pytest.fixture
def training_input(monkeypatch):
    """The module, on tiny frames."""
    pytest.importorskip("mmseg")
    from benchmarks import input as module

    monkeypatch.setattr(module, "FRAME", (64, 128))
    monkeypatch.setattr(module, "CROP", (32, 64))
    return module


def test_quick_input_benchmark_runs_and_writes_its_files(training_input, tmp_path, capsys):
    options = ["--quick", "--frames", "2", "--repeats", "2", "--out", str(tmp_path)]
    training_input.main(options)
    told = capsys.readouterr().out
    assert "images per second and core" in told and "resize, crop, flip" in told

    [stored] = tmp_path.glob("input_cpu-*_torch*_mmseg*_quick.json")
    content = json.loads(stored.read_text())
    assert content["about"]["frames"] == "2 rendered"
    assert [row["mode"] for row in content["rows"]] == ["plain", "cached"]
    for row in content["rows"]:
        assert row["size"] == "32x64" and row["max_relative_error"] <= 8 / 255
        assert len(row["theirs_rounds"]) == len(row["ours_rounds"]) == 2
        assert row["time_ratio"] == pytest.approx(row["ours_seconds"] / row["theirs_seconds"])
    for stages in content["about"]["stages_ms"].values():
        assert set(stages) == set(training_input.STAGES) and min(stages.values()) > 0
    assert stored.with_suffix(".csv").read_text().count("\n") == 3
    assert stored.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    training_input.main(["--markdown", str(stored)])
    told = capsys.readouterr().out
    assert "| cached | 32x64 |" in told and "| images per second and core |" in told


def test_input_benchmark_notices_another_label(training_input, tmp_path):
    training_input.rendered_frames(tmp_path, 1)
    samples = training_input.list_samples(tmp_path)
    theirs, ours = training_input.mmsegs_side(), training_input.dansegs_side(cache=False)
    assert training_input.largest_difference(theirs, ours, samples) <= 8 / 255
    ours.first.flip_prob = 1.0
    with pytest.raises(RuntimeError, match="the labels of .* differ"):
        training_input.largest_difference(theirs, ours, samples * 20)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "nowhere"], "--data nowhere: there is no leftImg8bit/train"),
        (["--threads", "2"], "leave out --device and --threads"),
    ],
)
def test_input_benchmark_names_what_it_cannot_use(training_input, options, words, capsys):
    with pytest.raises(SystemExit) as ending:
        training_input.main(options)
    assert ending.value.code == 1
    assert words in capsys.readouterr().err


@pytest.fixture
def inference(monkeypatch):
    """The module, with a plan of tiny networks."""
    pytest.importorskip("mmseg")
    from benchmarks import inference

    tiny = inference.Network(50, width=4)
    monkeypatch.setattr(
        inference,
        "QUICK",
        inference.Plan(
            tiny,
            [(64, 96)],
            [(5, [(64, 96)])],
            [(tiny, "windows")],
            (64, 96),
            tiny,
            (64, 96),
        ),
    )
    return inference


@pytest.mark.slow
def test_quick_inference_benchmark_runs_and_writes_its_files(inference, tmp_path, capsys):
    inference.main(["--quick", "--repeats", "2", "--device", "cpu", "--out", str(tmp_path)])
    assert "of danseg's own time in float32" in capsys.readouterr().out
    [stored] = tmp_path.glob("inference_cpu-*_torch*_mmseg*_quick.json")
    image, narrow, labels, validation, process, _ = json.loads(stored.read_text())["rows"]
    assert (image["mode"], narrow["mode"], labels["mode"]) == ("float32", "bfloat16", "5 classes")
    assert image["max_relative_error"] < 1e-4 < narrow["max_relative_error"]
    assert labels["max_relative_error"] < 1e-3, "labels differ"
    assert validation["mode"] == "windows, width 4"
    assert validation["max_relative_error"] < 1e-3, "labels differ"
    for row in (image, narrow, labels, validation):
        assert row["time_ratio"] == pytest.approx(row["ours_seconds"] / row["theirs_seconds"])
    assert len(image["ours_rounds"]) == 2 and image["theirs_rounds"] == narrow["theirs_rounds"]
    assert process["ours_extra_bytes"] > 100 * MIB, "the libraries count"
    assert process["theirs_extra_bytes"] > 100 * MIB
    assert stored.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_inference_promises_name_what_is_measured(inference):
    plan = inference.FULL
    measured = {(f"{plan.network.name}, {inference.IMAGE}", report.size_name(size)) for size in plan.images}
    measured |= {(inference.LABELS, report.size_name(size)) for _, sizes in plan.labels for size in sizes}
    measured.add((f"{plan.process.name}, {inference.PROCESS}", report.size_name(plan.process_size)))
    assert {(case, size) for case, _, size in inference.PROMISES} <= measured


def test_promised_bytes_are_judged():
    promises = {("a", "forward", "9x9"): report.Promise(memory_bytes=4e9)}
    for held, verdict in ((3_990_000_000, "kept"), (4_010_000_000, "MISSED")):
        row = report.Row("a", "forward", "9x9", ours_extra_bytes=held)
        [line] = report.promises_kept([row], promises)
        assert line.startswith(verdict) and "promised 4 GB" in line


@pytest.mark.slow
def test_quick_training_benchmark_runs_and_writes_its_files(monkeypatch, tmp_path, capsys):
    pytest.importorskip("mmseg")
    from benchmarks import training
    from benchmarks.networks import Network

    monkeypatch.setattr(training, "QUICK", (Network(50, width=4), (64, 64)))
    training.main(["--quick", "--repeats", "2", "--device", "cpu", "--out", str(tmp_path)])
    assert "DANet-R50 training step" in capsys.readouterr().out
    [stored] = tmp_path.glob("training_cpu-*_torch*_mmseg*_quick.json")
    rows = json.loads(stored.read_text())["rows"]
    assert [row["mode"] for row in rows] == list(training.WAYS)
    for row in rows:
        assert row["time_ratio"] == pytest.approx(row["ours_seconds"] / row["theirs_seconds"])
        assert row["ours_extra_bytes"] > 100 * MIB, "the libraries count"
        exact = row["mode"] != "bfloat16"
        assert row["max_relative_error"] < (1e-4 if exact else 0.1), "the first losses differ"


def test_training_promises_name_what_is_measured():
    from benchmarks import training

    network, size = training.FULL
    measured = {(f"{network.name} training step", way, report.size_name(size)) for way in training.WAYS}
    assert training.PROMISES.keys() <= measured


@pytest.mark.slow
def test_quick_heads_benchmark_runs_and_finds_no_difference(tmp_path, capsys):
    pytest.importorskip("mmseg")
    from benchmarks import heads

    options = ["--cases", "DANetHead", "CCNetHead", "--quick", "--repeats", "2"]
    heads.main([*options, "--device", "cpu", "--out", str(tmp_path)])
    [stored] = tmp_path.glob("heads_cpu-*_torch*_mmseg*_quick.json")
    *danet, ccnet, _ = json.loads(stored.read_text())["rows"]
    for row, tolerance in zip(danet, (1e-5, 1e-3), strict=True):
        assert row["max_relative_error"] < tolerance
        assert row["time_ratio"] == pytest.approx(row["ours_seconds"] / row["theirs_seconds"])
    assert ccnet["ours_seconds"] and (ccnet["theirs_seconds"] or "cannot be built" in ccnet["note"])


def test_every_head_with_a_counterpart_is_compared():
    import danseg.heads
    from benchmarks import heads

    without = {"AttentionHead", "EPSANetHead", "PSDAHead"}  # mmseg has no such network
    assert heads.ARGUMENTS.keys() == set(danseg.heads.__all__) - without


@pytest.mark.slow
def test_quick_exploration_benchmark_runs_and_asks_every_view(tmp_path, capsys):
    pytest.importorskip("mmseg")
    from benchmarks import exploration

    options = ["--cases", "danet", "--quick", "--repeats", "2", "--device", "cpu", "--threads", "1"]
    exploration.main([*options, "--out", str(tmp_path)])
    [stored] = tmp_path.glob("exploration_cpu-*_torch*_mmseg*_quick.json")
    [cost] = json.loads(stored.read_text())["costs"]
    assert cost["note"] == "" and cost["view"] == "decode_head.pam"
    assert {"decode_head.pam", "decode_head.cam", "probabilities", "decode_head.cam, its effect"} <= set(
        cost["clicks"]
    )
    assert len(cost["plain_rounds"]) == len(cost["first_rounds"]) == 2
    assert 0 < max(cost["clicks"].values()) < cost["effect_seconds"] and cost["kept_bytes"] > 64 * 128 * 11
    exploration.main(["--markdown", str(stored)])
    assert "| danet | decode_head.pam |" in capsys.readouterr().out


def test_promises_of_explorations_are_judged():
    from benchmarks import exploration

    cost = exploration.Cost(
        "danet",
        plain_seconds=10,
        first_seconds=11,
        plain_bytes=2 * 10**9,
        first_bytes=int(2.5e9),
        clicks={"decode_head.pam": 0.01, "decode_head.cam": 0.3},
    )
    assert [line.split(":")[0] for line in exploration.promises(cost)] == ["kept", "kept", "MISSED"]
    assert exploration.promises(exploration.Cost("danet", note="killed")) == []


@pytest.mark.slow
def test_quick_predict_benchmark_runs_and_writes_its_files(monkeypatch, tmp_path, capsys):
    pytest.importorskip("mmseg")
    from benchmarks import predict
    from benchmarks.networks import Network

    monkeypatch.setattr(predict, "NETWORK", Network(18, width=4, recipe="camvid"))
    options = ["--quick", "--pictures", "20", "--repeats", "2", "--device", "cpu"]
    predict.main([*options, "--out", str(tmp_path)])
    assert "pictures a second, in batches" in capsys.readouterr().out
    [stored] = tmp_path.glob("predict_cpu-*_torch*_mmseg*_quick.json")
    rows = json.loads(stored.read_text())["rows"]
    assert [row["mode"] for row in rows] == [predict.INFERENCER, predict.BATCHES, predict.ONE_BY_ONE]
    for row in rows:
        assert row["time_ratio"] == pytest.approx(row["ours_seconds"] / row["theirs_seconds"])
        assert row["max_relative_error"] <= predict.TIES, "labels differ"
        assert 0 < row["floor_seconds"] < row["ours_seconds"] and len(row["ours_rounds"]) == 2
    predict.main(["--markdown", str(stored)])
    assert f"| {predict.ONE_BY_ONE} | 64x96 |" in capsys.readouterr().out


def test_predict_benchmark_notices_other_labels(tmp_path):
    pytest.importorskip("mmseg")
    import cv2
    import numpy as np

    from benchmarks import predict

    (tmp_path / "ours").mkdir()
    (tmp_path / "pred").mkdir()
    labels = np.arange(200, dtype=np.uint8).reshape(10, 20)
    cv2.imwrite(str(tmp_path / "ours" / "00000_labels.png"), labels)
    for changed in (0, 1):
        labels[0, 0] += changed
        cv2.imwrite(str(tmp_path / "pred" / "00000000_pred.png"), labels)
        if not changed:
            assert predict.differing(tmp_path / "ours", tmp_path / "pred") == 0
            continue
        with pytest.raises(RuntimeError, match="0.005 of the labels of 1 pictures differ"):
            predict.differing(tmp_path / "ours", tmp_path / "pred")


def test_every_module_with_views_is_measured_and_a_modules_parts_by_what_they_get():
    from benchmarks import attention_views
    from danseg.attention.parts.views import attention_modules

    for case in attention_views.CASES:
        views = attention_views.prepared(case, 64, (4, 6), CPU)
        module = getattr(danseg.attention, case.name)(64, **case.arguments)
        assert bool(views) == bool(attention_modules(module)), case
        for _, view, x in views:
            assert attention_views.question(view, view.begin(x), x)().isfinite().all()
    [dual] = [case for case in attention_views.CASES if case.name == "DualAttention"]
    assert [label for label, *_ in attention_views.prepared(dual, 64, (4, 6), CPU)] == [
        "pam: position",
        "cam: channels",
    ]


@pytest.mark.slow
def test_quick_views_benchmark_runs_and_prints_the_table_of_the_page(tmp_path, capsys):
    pytest.importorskip("mmseg")
    from benchmarks import attention_views

    options = ["--quick", "--repeats", "2", "--device", "cpu", "--out", str(tmp_path)]
    attention_views.main(["--cases", "CBAM", "PositionAttention", *options])
    capsys.readouterr()
    [stored] = tmp_path.glob("attention_views_cpu-*_torch*_mmseg*_quick.json")
    content = json.loads(stored.read_text())
    assert [(cost["module"], cost["view"], cost["kind"]) for cost in content["costs"]] == [
        ("CBAM", "everywhere", "everywhere"),
        ("CBAM", "`channels`", "channels"),
        ("PositionAttention", "position", "position"),
    ]
    for cost in content["costs"]:
        assert cost["note"] == "" and cost["begin_seconds"] > 0 and cost["extra_bytes"] >= 0
        assert len(cost["begin_rounds"]) == 2
        assert bool(cost["position_seconds"]) == bool(cost["position_rounds"]) == (cost["kind"] == "position")
    attention_views.main(["--markdown", str(stored)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| module | shows | begin, ms | further position, ms | extra MiB |"
    assert lines[3].startswith("| `CBAM` | `channels` | ") and "| – |" in lines[3]
    assert lines[-1].startswith("One image of 64 channels at 16x24, float32, ")


def test_a_file_that_holds_no_costs_of_views_is_one_message(tmp_path, capsys):
    from benchmarks import attention_views

    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(SystemExit) as ending:
        attention_views.main(["--markdown", str(path)])
    assert ending.value.code == 1
    assert "give a .json file that this benchmark wrote" in capsys.readouterr().err


def test_a_view_that_cannot_be_measured_says_why(monkeypatch):
    from benchmarks import attention_views
    from danseg.engine.measuring import MeasurementError

    def killed(*arguments):
        raise MeasurementError("the measuring process ended with status -9, most likely for want of memory")

    monkeypatch.setattr(attention_views, "in_subprocess", killed)
    [case] = [case for case in attention_views.CASES if case.name == "CBAM"]
    costs = attention_views.measure(case, 64, (4, 6), CPU, 2)
    about = dict(channels=64, size=(4, 6), device_name="none", torch="2", repeats=2)
    table = attention_views.markdown(costs, about)
    assert "- `CBAM`, view 1: memory: the measuring process ended with status -9" in table


@pytest.mark.parametrize(
    ("value", "said"), [(None, "–"), (0, "0"), (1234.5, "1234"), (12.345, "12.3"), (0.0123, "0.012")]
)
def test_costs_have_three_digits_and_no_exponent(value, said):
    from benchmarks import attention_views

    assert attention_views._number(value, 1) == said
