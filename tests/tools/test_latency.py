"""tools/latency.py: one table, one file of all figures, and a message for each mistake."""

import json

import pytest

from danseg.apis import latency

TINY = """
_base_ = [{base!r}]
model = dict(test_cfg=dict(_delete_=True, mode="whole"))
"""


@pytest.fixture
def tiny_file(tmp_path, request, monkeypatch):
    base = request.config.rootpath / "tests" / "engine" / "tiny.py"
    path = tmp_path / "tiny_net.py"
    path.write_text(TINY.format(base=str(base)))
    # Memory is measured here, which saves a process and its imports.
    monkeypatch.setattr(latency, "in_subprocess", lambda function, *args: function(*args))
    return str(path)


def test_a_table_and_a_file(tool, tiny_file, tmp_path, capsys):
    out = tmp_path / "new" / "figures.json"
    tool("latency").main([tiny_file, "--repeat", "3", "--batch", "2", "--device", "cpu", "--json", str(out)])
    said = capsys.readouterr().out
    assert said.startswith("tiny_net: 32x64, batch 2, float32, whole images, cpu\n")
    assert (
        "danseg/mmseg" in said and "timed calls of each side: 3, in turn, after 2 that do not count" in said
    )
    assert "random weights" in said and f"written: {out}" in said
    stored = json.loads(out.read_text())
    assert (stored["size"], stored["batch"], stored["checkpoint"]) == ([32, 64], 2, None)
    for side in ("danseg", "mmseg"):
        of_side = stored["sides"][side]
        assert len(of_side["rounds"]) == 3
        assert of_side["images_per_second"] == pytest.approx(2 / of_side["seconds"])
        shown = next(line.split() for line in said.splitlines() if "parameters" in line)
        assert f"{of_side['parameters'] / 1e6:.2f}" in shown
    assert [path.name for path in out.parent.iterdir()] == ["figures.json"]


def test_weights_of_a_checkpoint_and_windows(tool, tiny_file, tmp_path, capsys):
    import torch

    from danseg.apis import load_model

    weights = tmp_path / "weights.pth"
    torch.save(dict(state_dict=load_model(tiny_file, None, "cpu").state_dict(), meta={}), weights)
    windows = "model.test_cfg={'mode':'slide','crop_size':(32,32),'stride':(32,32)}"
    tool("latency").main(
        [tiny_file, str(weights), "--repeat", "1", "--device", "cpu", "--cfg-options", windows]
    )
    said = capsys.readouterr().out
    assert "windows" in said and "random weights" not in said


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--precision", "float16"], "precision float16 needs a GPU"),
        (["--device", "nope"], "device 'nope' is none"),
        (["--json", "{file}/figures.json"], "cannot make the folder"),
        (["--cfg-options", "model.decode_head.type=Nope"], "there is no such model"),
        (["no_such.pth"], "no_such.pth"),
    ],
)
def test_a_mistake_is_one_message(tool, tiny_file, capsys, arguments, said):
    with pytest.raises(SystemExit) as exit:
        tool("latency").main([tiny_file, *(one.format(file=tiny_file) for one in arguments)])
    error = capsys.readouterr().err
    assert exit.value.code == 1 and said in error and error.count("error: ") == 1 and "Traceback" not in error


@pytest.mark.parametrize(
    "option", [["--size", "0", "64"], ["--batch", "x"], ["--repeat", "0"], ["--size", "3"]]
)
def test_a_number_that_is_none_is_refused_at_once(tool, tiny_file, capsys, option):
    with pytest.raises(SystemExit) as exit:
        tool("latency").main([tiny_file, *option])
    assert exit.value.code == 2 and option[0] in capsys.readouterr().err
