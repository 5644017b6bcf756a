"""tools/attention_statistics.py: a table, a file of all figures, and a message for each mistake."""

import json

import pytest
import torch

from danseg.apis import load_model
from danseg.apis.attention_statistics import attention_statistics
from danseg.apis.split_pictures import split_pictures
from danseg.engine.config.config_file import load_config

TINY = """
_base_ = [{base!r}]
data_root = {root!r}
"""


@pytest.fixture
def trained(tmp_path, request, rendered_root):
    """A config, and weights with one dead and one living branch."""
    path = tmp_path / "tiny_net.py"
    base = request.config.rootpath / "tests" / "engine" / "tiny.py"
    path.write_text(TINY.format(base=str(base), root=rendered_root))
    torch.manual_seed(0)
    model = load_model(path, None, "cpu")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    torch.nn.init.constant_(model.decode_head.cam.gamma.scale, -0.7)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / "weights.pth")
    return str(path), str(tmp_path / "weights.pth")


def test_a_table_and_a_file(tool, trained, tmp_path, capsys):
    out = tmp_path / "new" / "figures.json"
    tool("attention_statistics").main(
        [*trained, "--images", "3", "--positions", "4", "--seed", "5", "--device", "cpu", "--out", str(out)]
    )
    said = capsys.readouterr().out
    assert said.startswith("3 pictures, 4 positions in each, seed 5\n")
    lines = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    dead, living = lines["decode_head.pam"], lines["decode_head.cam"]
    assert "0.0 %" in dead and "dead: γ is 0" in dead and "distance" in dead
    assert "-0.7" in living and "channels" in living and "difference" in living
    assert "idle: without it fewer than 0.1 %" in said and f"written: {out}" in said

    stored = json.loads(out.read_text(encoding="utf-8"))
    config = load_config(trained[0])
    pictures = split_pictures(config, "val", 3)
    assert len(pictures) == 3
    expected = attention_statistics(load_model(config, trained[1], "cpu"), pictures, positions=4, seed=5)
    expected = json.loads(json.dumps(expected.as_dict()))
    assert (stored["split"], stored["checkpoint"], stored["precision"]) == ("val", trained[1], "float32")
    for found, one in zip(stored["modules"], expected["modules"], strict=True):
        assert found["changed"] == pytest.approx(one["changed"], abs=1e-3)
        for view, other in zip(found["views"], one["views"], strict=True):
            assert view["figures"] == pytest.approx(other["figures"], rel=1e-3)
    assert [path.name for path in out.parent.iterdir()] == ["figures.json"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--device", "nope"], "device 'nope' is none"),
        (["--out", "{file}/figures.json"], "cannot make the folder"),
        (["--cfg-options", "model.decode_head.type=Nope"], "there is no such model"),
        (["--cfg-options", "data_root=nowhere"], "the val split is missing"),
        (["--cfg-options", "test_dataloader=None", "--split", "test"], "no test_dataloader"),
        (["--precision", "float16", "--device", "cpu"], "float16 needs a GPU"),
    ],
)
def test_a_mistake_is_one_message(tool, trained, capsys, arguments, said):
    with pytest.raises(SystemExit) as exit:
        tool("attention_statistics").main([*trained, *(one.format(file=trained[0]) for one in arguments)])
    error = capsys.readouterr().err
    assert exit.value.code == 1 and said in error and error.count("error: ") == 1 and "Traceback" not in error


def test_a_network_without_attention_is_refused_before_any_picture(tool, trained, capsys):
    head = dict(type="FCNHead", num_convs=1, in_channels=64, in_index=3, channels=16, num_classes=19)
    weights = trained[1].replace("weights", "other")
    options = ["--cfg-options", f"model.decode_head={dict(head, _delete_=True)}", "data_root=nowhere"]
    from danseg.engine.config.cfg_options import parse_options

    model = load_model(load_config(trained[0], parse_options(options[1:])), None, "cpu")
    torch.save(dict(state_dict=model.state_dict(), meta={}), weights)
    with pytest.raises(SystemExit):
        tool("attention_statistics").main([trained[0], weights, *options])
    assert "FCNHead has no attention to show" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [["--images", "0"], ["--positions", "1"], ["--seed", "-1"], ["--split", "x"], ["--out", "figures.txt"]],
)
def test_an_option_that_means_nothing_is_refused_at_once(tool, trained, capsys, option):
    with pytest.raises(SystemExit) as exit:
        tool("attention_statistics").main([*trained, *option])
    assert exit.value.code == 2 and option[0] in capsys.readouterr().err
