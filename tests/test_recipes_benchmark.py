"""The table of recipes: what is trained, how trainings are ended and continued, and what is said of them."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import recipe_queue, recipe_table, recipes
from benchmarks.recipe_configs import CONFIGS, config_text, datasets, fingerprint, heads, leaves
from benchmarks.recipe_queue import Limits, Stopped, carry_out, expected_minutes, locked
from benchmarks.recipe_runs import STATE, Outcome, Training, plan
from danseg.engine.config.config_file import load_config
from danseg.errors import UserError

BENCHMARK = {  # what the benchmark may change of a recipe
    "train_cfg": ("val_interval",),
    "default_hooks": ("checkpoint", "logger"),
}
TINY = ["crop_size=(32,64)", "image_scale=(128,64)", "train_dataloader.batch_size=2"]


def merged(folder, head, dataset, **options):
    path = folder / f"{head}_{dataset}.py"
    path.write_text(config_text(head, dataset))
    return load_config(path, options)


def without_changes(config):
    values = config.to_dict()
    for part, keys in BENCHMARK.items():
        values[part] = {key: value for key, value in values[part].items() if key not in keys}
    return values


def test_every_head_is_trained_and_the_baseline_first():
    import danseg.heads

    types = {load_config(path).model.decode_head.type for path in leaves().values()}
    assert types == set(danseg.heads.__all__)
    assert {head for head, _ in leaves()} == set(heads()) and heads()[0] == "fcn"
    assert {"camvid", "demo"} <= set(datasets())


@pytest.mark.parametrize(("head", "dataset"), sorted(leaves()))
def test_a_config_is_trained_as_it_stands(head, dataset, tmp_path):
    leaf = load_config(leaves()[head, dataset])
    assert without_changes(merged(tmp_path, head, dataset)) == without_changes(leaf)


@pytest.mark.parametrize("head", [head for head in heads() if (head, "demo") not in leaves()])
def test_a_network_without_a_config_gets_the_recipe_and_its_own_settings(head, tmp_path):
    made = merged(tmp_path, head, "demo")
    of_head = load_config(leaves()[head, "camvid"]).model.decode_head
    recipe, other = (
        load_config(CONFIGS / "_base_" / "recipes" / f"{name}.py") for name in ("demo", "camvid")
    )
    own = {key for key, value in of_head.items() if other.model.decode_head.get(key) != value}
    assert "type" in own
    assert {key: made.model.decode_head[key] for key in own} == {key: of_head[key] for key in own}
    for key in own:
        del made.model.decode_head[key]
    assert without_changes(made) == without_changes(recipe)


def test_a_training_of_another_length_follows_it_and_validates_once(tmp_path):
    config = merged(tmp_path, "danet", "camvid", max_iters=8)
    assert config.train_cfg.max_iters == config.train_cfg.val_interval == 8
    assert config.param_scheduler[-1].end == 8
    checkpoint = config.default_hooks.checkpoint
    assert (checkpoint.interval, checkpoint.max_keep_ckpts, checkpoint.save_best) == (2, 1, None)
    assert config.default_hooks.logger.interval == 8


def test_the_fingerprint_tells_configs_apart():
    assert len({fingerprint(config_text(head, "demo")) for head in heads()}) == len(heads())


class Script(Training):
    """A training that is a shell script, which knows its folder as ``$HERE``."""

    script = "true"

    def start(self, options, threads, lock):
        self.before, self.started = self.outcome.minutes, time.monotonic()
        self.process = subprocess.Popen(
            ["sh", "-c", self.script],
            stdout=self.said.open("w"),
            env={**os.environ, "HERE": str(self.folder)},
            start_new_session=True,
        )


SCORES = json.dumps({"iteration": 8, "mIoU": 50.0, "classes": {"road": {"IoU": 60.0}, "bus": {"IoU": None}}})
SUCCEEDS = f"mkdir -p $HERE/run; echo '{SCORES}' > $HERE/run/validation.json"


@pytest.fixture
def scripts(tmp_path):
    """Trainings that are scripts, by name."""

    def make(**named):
        made = []
        for head, script in named.items():
            folder = tmp_path / head
            folder.mkdir()
            made.append(Script("demo", head, 0, folder, Outcome({})))
            made[-1].script = script
        return made

    return make


def run(trainings, jobs=1, seconds=None, discard=False, stopped=None):
    said = []
    until = None if seconds is None else time.monotonic() + seconds
    carry_out(
        trainings,
        [],
        Limits(jobs, until),
        0,
        discard_checkpoints=discard,
        stopped=stopped or Stopped(),
        while_waiting=lambda: None,
        log=said.append,
    )
    return said


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks for processes in /proc")
def test_at_the_limit_trainings_and_their_children_are_ended(scripts, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_queue, "PATIENCE", 0.5)
    # One ends when it is asked, the other does not listen; each has a process of its own.
    polite, deaf = (
        "sleep 60 & echo $! > $HERE/pid; wait",
        "trap '' TERM; sleep 60 & echo $! > $HERE/pid; wait",
    )
    trainings = scripts(polite=polite, deaf=deaf, late=SUCCEEDS)
    (trainings[0].folder / "iter_4.pth").touch()
    began = time.monotonic()
    run(trainings, jobs=2, seconds=0.5)
    assert time.monotonic() - began < 3
    assert not any(alive(int((one.folder / "pid").read_text())) for one in trainings[:2])
    assert trainings[0].outcome.note == "goes on after iteration 4 when run again"
    assert not any(one.finished or one.outcome.failed for one in trainings)
    rows = recipe_table.rows(trainings)
    assert rows[2]["note"] == "left out: no time was left" and rows[2]["mIoU"] is None


def test_what_does_not_fit_is_left_out_and_a_shorter_one_is_not(scripts):
    first, long, short = scripts(first=f"sleep 1.5; {SUCCEEDS}", long=SUCCEEDS, short=SUCCEEDS)
    (short.folder / "iter_8.pth").touch()  # nothing but its validation is left to do
    said = run([first, long, short], seconds=2.9)
    assert first.finished and short.finished
    assert not long.finished and "left out, it needs about 0.0" in long.outcome.note
    assert any(line.startswith("short seed 0: goes on after iteration 8") for line in said)


def test_a_training_is_expected_to_take_what_those_of_its_head_took(scripts):
    one, other, new = scripts(one="", other="", new="")
    assert expected_minutes(new, []) is None
    for done, minutes in ((one, 4.0), (other, 2.0)):
        done.outcome.scores, done.outcome.minutes = {"iteration": 8}, minutes
    assert expected_minutes(new, [one, other]) == 3.0
    new.head = "one"
    assert expected_minutes(new, [one, other]) == 4.0
    (new.folder / "iter_6.pth").touch()
    assert expected_minutes(new, [one, other]) == 1.0


def test_a_failure_is_told_and_the_others_are_trained(scripts):
    fails = "echo 'error: no such network'; echo later; exit 1"
    killed, failed, good = scripts(killed="kill -9 $$", failed=fails, good=SUCCEEDS)
    (good.folder / "iter_8.pth").touch()
    run([killed, failed, good], discard=True)
    assert killed.outcome.failed and killed.outcome.note == "ended with status -9"
    assert failed.outcome.failed and failed.outcome.note == "no such network"
    assert good.finished and not good.outcome.failed and not list(good.folder.glob("*.pth"))
    assert json.loads((failed.folder / STATE).read_text())["note"] == "no such network"


def test_ctrl_c_ends_the_trainings(scripts):
    [waiting] = scripts(waiting="sleep 60")
    with Stopped() as stopped:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        run([waiting], stopped=stopped)
    assert stopped.signal == signal.SIGINT and waiting.process is None


def test_trainings_share_the_cores(monkeypatch):
    monkeypatch.setattr(recipe_queue, "available_cpus", lambda: 16)
    shares = [(Limits(jobs).threads, Limits(jobs).workers) for jobs in (1, 4, 6, 20)]
    assert shares == [(16, 4), (4, 3), (2, 1), (1, 1)]


def test_a_folder_takes_one_benchmark_at_a_time(tmp_path):
    with locked(tmp_path) as lock:
        # A process that has the lock from the benchmark keeps it.
        process = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
    with pytest.raises(UserError, match="trainings are running"), locked(tmp_path):
        pass
    process.kill()
    process.wait()
    with locked(tmp_path):
        pass


def test_a_training_with_other_settings_is_neither_continued_nor_kept(tmp_path):
    [made] = plan("demo", ["fcn", "fcn"], [0, 0], tmp_path, {"iterations": 5})
    made.save()
    assert len(plan("demo", ["fcn"], [0], tmp_path, {"iterations": 5, "place": "here"})) == 1
    with pytest.raises(UserError, match="iterations 5 instead of 6: choose another --out"):
        plan("demo", ["fcn"], [0], tmp_path, {"iterations": 6})
    (made.folder / STATE).write_text("{")
    with pytest.raises(UserError, match=r"training\.json is damaged"):
        plan("demo", ["fcn"], [0], tmp_path, {"iterations": 5})


def test_means_spread_and_memory():
    def finished(head, seed, score, road, device=None):
        classes = {"road": {"IoU": road}, "bus": {"IoU": None}}
        outcome = Outcome({}, 2.0 + seed, 300 * 2**20, device)
        outcome.scores = {"iteration": 8, "mIoU": score, "classes": classes}
        return Training("demo", head, seed, Path("none"), outcome)

    left = Training("demo", "ccnet", 0, Path("none"), Outcome({}))
    rows = recipe_table.rows(
        [
            finished("fcn", 0, 40.0, 70.0),
            finished("fcn", 1, 44.0, 80.0),
            finished("danet", 0, 50.0, 9.0, 77),
            left,
        ]
    )
    assert recipe_table.summary_cells(rows) == [
        ["fcn", "0 1", "42.00", "2.83", "40.00", "44.00", "2.50", "300"],
        ["danet", "0", "50.00", "–", "50.00", "50.00", "2.00", "77"],
        ["ccnet", "–", "–", "–", "–", "–", "–", "–"],
    ]
    head, lines = recipe_table.class_cells(rows)
    assert head == ["class", "fcn", "danet"]
    assert lines == [["road", "75.00", "9.00"], ["bus", "–", "–"]]


def test_wrong_lines_are_one_message(tmp_path, capsys):
    for options, message in (
        (["--set", "demo", "--data-root", str(tmp_path)], "tools/prepare_dataset.py demo"),
        (["--set", "demo", "--heads", "danett"], "danet"),
        (["--set", "demo", "--jobs", "0"], "a whole number from 1"),
    ):
        with pytest.raises(SystemExit) as ended:
            recipes.main([*options, "--out", str(tmp_path)])
        said = capsys.readouterr().err
        assert ended.value.code in (1, 2) and message in said and "Traceback" not in said


def logged(folder):
    """The last mIoU among the scalars, and the IoU of each class from the table in what was said."""
    lines = [
        json.loads(line)
        for path in sorted(folder.glob("*/vis_data/scalars.json"))
        for line in path.read_text().splitlines()
    ]
    table = re.findall(
        r"^\| ([a-z ]+?) +\| +([\d.]+|-) \|", (folder / "stdout.txt").read_text(), re.MULTILINE
    )
    classes = {
        name: None if value == "-" else float(value) for name, value in table if name not in ("class", "mean")
    }
    return [line["mIoU"] for line in lines if "mIoU" in line], classes


@pytest.mark.slow
def test_trained_stopped_and_continued(rendered_root, tmp_path, monkeypatch, capsys):
    """Two networks, tiny: stopped when the second has saved a checkpoint, then run again, twice."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    line = ["--set", "demo", "--heads", "fcn", "ccnet", "--data-root", rendered_root, "--iterations", "40"]
    line += ["--out", str(tmp_path), "--jobs", "2", "--discard-checkpoints", "--cfg-options", *TINY]
    fcn, ccnet = (tmp_path / "trainings" / f"demo_{head}_0" for head in ("fcn", "ccnet"))

    def stop():
        until = time.monotonic() + 60
        while not (ccnet / "iter_10.pth").exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(SystemExit) as ended:
        recipes.main(line)
    assert ended.value.code == 128 + signal.SIGTERM
    said = capsys.readouterr().out
    assert "ccnet seed 0: goes on after iteration" in said and "wrote" in said
    state = json.loads((ccnet / STATE).read_text())
    assert state["scores"] is None and not state["failed"] and state["minutes"] > 0

    recipes.main(line)
    said = capsys.readouterr().out
    assert re.search(r"ccnet seed 0: goes on after iteration [1-3]\d\b", said)  # its signal saves
    assert "continued after iteration" in (ccnet / "stdout.txt").read_text()
    [table] = [json.loads(path.read_text()) for path in tmp_path.glob("recipes-demo_*_40iterations.json")]
    assert table["about"]["batch"] == 2 and table["about"]["precision"].startswith("float32")
    assert [row["network"] for row in table["trainings"]] == ["fcn", "ccnet"]
    for row, folder in zip(table["trainings"], (fcn, ccnet), strict=True):
        assert row["finished"] and row["note"] == "" and row["iterations"] == 40
        scores, classes = logged(folder)
        assert scores == [row["mIoU"]]  # one validation, although the training was stopped and continued
        assert len(classes) == 19
        assert {k: None if v is None else round(v, 2) for k, v in row["IoU"].items()} == classes
        assert row["minutes"] > state["minutes"] / 2 and 10 < row["peak MiB"] < 10_000
        assert not list(folder.glob("*.pth"))

    [stored] = tmp_path.glob("*.csv")
    with stored.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(one["mIoU"]) for one in lines] == [row["mIoU"] for row in table["trainings"]]
    assert float(lines[0]["IoU road"]) == table["trainings"][0]["IoU"]["road"]
    assert f"| fcn | 0 | {table['trainings'][0]['mIoU']:.2f} | – |" in stored.with_suffix(".md").read_text()

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trainings/*/*")}
    recipes.main(line)  # all is finished
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("trainings/*/*")}


def test_no_torch_is_loaded_before_the_first_training_starts():
    """No more than an import of danseg loads: the original line's mmengine imports torch."""
    script = "import sys, danseg; own = 'torch' in sys.modules; import benchmarks.recipes; "
    done = subprocess.run(
        [sys.executable, "-c", f"{script} print(own or 'torch' not in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True"]
