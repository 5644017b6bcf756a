"""Which file a config's name means, and bases that come with danseg."""

from pathlib import Path

import pytest

from danseg import shipped
from danseg.engine.config.config_chain import is_published
from danseg.engine.config.config_file import load_config
from danseg.engine.config.find_config import find_base, find_config
from danseg.errors import UserError
from danseg.io.files import make_folder

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder that is no clone."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_is_found_by_its_name(path):
    assert find_config(path.stem).resolve() == find_config(path.name).resolve() == path
    assert find_config(path) == find_config(path.with_suffix("")) == path


def test_a_file_of_the_same_name_wins(elsewhere):
    (elsewhere / "danet_r18_demo.py").write_text("")
    assert find_config("danet_r18_demo") == find_config("danet_r18_demo.py") == Path("danet_r18_demo.py")
    (elsewhere / "ccnet_r18_camvid").mkdir()  # a folder is no config
    assert find_config("ccnet_r18_camvid").parent.resolve() == CONFIGS


@pytest.mark.parametrize("name", ["danet_r18_camvit", "configs/danet_r18_camvit.py", "./danet_r18_camvit"])
def test_the_nearest_names_are_suggested(name):
    with pytest.raises(UserError, match=r"does not exist; did you mean danet_r18_camvid[,?]"):
        find_config(name)


@pytest.mark.parametrize("name", ["", ".", "/", "_base_/runtime", ".."])
def test_what_is_no_name(name):
    with pytest.raises(UserError, match=r"does not exist"):
        find_config(name)


def test_a_base_that_comes_with_danseg_acts_as_any(elsewhere):
    (elsewhere / "mine.py").write_text('_base_ = "danseg::danet_r18_demo.py"\nmax_iters = 7\n')
    mine, theirs = load_config("mine"), load_config("danet_r18_demo")
    assert mine.train_cfg.max_iters == 7 and mine.train_cfg.val_interval == 2
    assert mine.model == theirs.model  # in no other scope
    assert not is_published(find_base("danseg::danet_r18_demo.py"))


def test_a_base_that_does_not_exist_is_named(elsewhere):
    (elsewhere / "mine.py").write_text('_base_ = "danseg::dannet_r18_demo.py"\n')
    with pytest.raises(UserError, match=r"mine\.py refers to a file that does not exist: .*dannet_r18_demo"):
        load_config("mine")


def test_bases_of_others_are_mmengines():
    assert find_base("mmseg::danet/danet_r50-d8.py") is None and find_base("./danseg.py") is None


def test_a_wheels_configs_are_no_others_though_they_lie_where_those_do(elsewhere, monkeypatch):
    folder = make_folder(elsewhere / "danseg" / ".mim" / "configs")
    (folder / "base.py").write_text("length = 4\ntrain_cfg = dict(max_iters=2 * length)\n")
    (folder / "leaf.py").write_text('_base_ = "./base.py"\nlength = 5\n')
    theirs = load_config(folder / "leaf.py")
    assert theirs.train_cfg.max_iters == 8 and is_published(folder / "leaf.py")
    monkeypatch.setattr(shipped, "MIM", folder.parent)
    assert load_config("leaf").train_cfg.max_iters == 10
