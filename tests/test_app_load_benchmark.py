"""The benchmark of the page sees what is wrong, foreign, left, or grows; and a short run keeps all."""

import json

import pytest

from benchmarks import app_load


def visits(**changes) -> app_load.Visits:
    load = app_load.Visits(20, 60, 15, visits=4, clicks=32, latencies=[0.1] * 3, exit_status=0)
    load.memory = [100 * 2**20] * 9
    for name, value in changes.items():
        setattr(load, name, value)
    return load


def missed(load: app_load.Visits) -> list[str]:
    assert len(load.lines()) == 1 + len(load.verdicts())
    return [line for kept, line in load.verdicts() if not kept]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (dict(clicks=0), "4 visits and 0 clicks answered"),
        (dict(wrong=["look: x"]), "wrong answers: look: x"),
        (dict(foreign=1), "1 pictures of others were seen"),
        (
            dict(memory=[2**20 * (100 + at) for at in range(9)]),
            "memory: +5.94% from the first third to the last (101, 104, 107 MiB)",
        ),
        (dict(exit_status=-15), "after SIGTERM it ended with status -15, and left: nothing"),
        (dict(left=["a/b"]), "after SIGTERM it ended with status 0, and left: a/b"),
    ],
)
def test_what_goes_wrong_is_seen(changes, line):
    assert missed(visits()) == [] and missed(visits(**changes)) == [line]


def test_a_stored_result_is_read_again(tmp_path, capsys):
    path = tmp_path / "app_load.json"
    path.write_text(json.dumps({"load": vars(visits())}))
    app_load.main(["--markdown", str(path)])
    assert "- kept: 4 visits and 32 clicks answered" in capsys.readouterr().out


@pytest.mark.slow
def test_a_short_run_keeps_all_promises():
    load = app_load.measure(visitors=3, seconds=1, warm_up=0)
    assert missed(load) == [] and load.visits >= 3


@pytest.mark.slow
def test_a_page_that_shows_another_picture_is_seen(monkeypatch):
    own = app_load.drawn
    monkeypatch.setattr(
        app_load,
        "drawn",
        lambda model, seed: (
            (found := own(model, seed))
            and app_load.Own(own(model, seed + 100).content, found.legend, found.said)
        ),
    )
    load = app_load.measure(visitors=2, seconds=1, warm_up=0)
    assert any(line.startswith("wrong answers: open: ") for line in missed(load))
