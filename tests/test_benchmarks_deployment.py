"""The benchmark of exported networks: every way gives mmseg's logits, and what is promised is judged."""

import json

import pytest

from benchmarks import deployment
from benchmarks.report import Row


def rows(**seconds: float) -> list[Row]:
    found = [Row("case", name.replace("_", " "), "1x1", ours_seconds=time) for name, time in seconds.items()]
    deployment._judge(found)
    return found


def test_what_is_promised_between_the_ways_is_judged():
    seconds = {"danseg, float32": 5.0, "ONNX Runtime, plain graph": 4.0, "OpenVINO, float32": 3.0}
    notes = {
        row.mode: row.note for row in rows(**seconds, **{"OpenVINO, int8": 1.25, "ONNX Runtime, int8": 1.5})
    }
    assert notes["OpenVINO, float32"] == "0.75 of the time of the plain graph in ONNX Runtime (kept)"
    assert "2.40 times as fast as the fastest in float32" in notes["OpenVINO, int8"]
    assert notes["OpenVINO, int8"].endswith("kept)")
    assert "2.00 times" in notes["ONNX Runtime, int8"] and notes["ONNX Runtime, int8"].endswith("MISSED)")
    slow = rows(**{"ONNX Runtime, plain graph": 4.0, "ONNX Runtime, float32": 4.4})
    assert slow[1].note == "1.10 of the time of the plain graph in ONNX Runtime (MISSED)"


def test_promises_name_what_is_measured():
    network, size = deployment.FULL
    for case, way, of_size in deployment.PROMISES:
        assert way in deployment.WAYS and way != deployment.THEIRS
        assert case == deployment.CASE.format(network=network.name)
        assert of_size == deployment.size_name(size)


def test_an_unknown_way_is_told_the_names(capsys):
    with pytest.raises(SystemExit):
        deployment.main(["--cases", "TensorRT"])
    assert "'OpenVINO, int8'" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_benchmark_runs_every_way(tmp_path, capsys):
    deployment.main(["--quick", "--repeats", "1", "--threads", "1", "--out", str(tmp_path)])
    assert "ONNX Runtime, int8" in capsys.readouterr().out
    [stored] = tmp_path.glob("deployment_cpu-*_torch*_mmseg*_quick.json")
    found = {row["mode"]: row for row in json.loads(stored.read_text())["rows"]}
    assert list(found) == [name for name in deployment.WAYS if name != deployment.THEIRS]
    for name, row in found.items():
        # Random weights magnify what rounding does: these tell a wrong network from a rounded one.
        most = 0.3 if "int8" in name else 0.1 if "bfloat16" in name else 1e-4
        assert row["max_relative_error"] < most
        assert row["ours_seconds"] > 0 and row["ours_extra_bytes"] > 0 and row["theirs_extra_bytes"] > 0
