"""A config inside another file: the same config comes back, and nothing of it is run."""

import os
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.models import EncoderDecoder

from danseg.engine.config.config_file import load_config
from danseg.engine.config.stored_config import carried_config, config_from_text, config_to_text
from danseg.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
LEAVES = sorted(ROOT.glob("configs/*.py"))


def typed(value):
    """A value in which a tuple differs from a list, and True from 1."""
    if isinstance(value, dict):
        return {key: typed(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [typed(one) for one in value]
    return type(value).__name__, value


def there_and_back(values: dict) -> dict:
    return config_from_text(config_to_text(Config(values)), "best.pth").to_dict()


def test_every_config_comes_back_as_it_was():
    assert len(LEAVES) > 50
    for path in LEAVES:
        config = load_config(path)
        back = config_from_text(config_to_text(config), path)
        wanted = {
            name: value for name, value in config.to_dict().items() if name not in ("load_from", "resume")
        }
        assert typed(back.to_dict()) == typed(wanted), path.name
        assert back.filename == str(path)


@pytest.mark.parametrize("path", LEAVES[::25], ids=lambda path: path.stem)
def test_mmengines_own_text_is_read_too(path):
    config = load_config(path)
    wanted = {name: value for name, value in config.to_dict().items() if name not in ("load_from", "resume")}
    config.work_dir = "/somewhere"  # which a file does not choose
    assert typed(config_from_text(config.pretty_text, "a.pth").to_dict()) == typed(wanted)


def test_odd_values_come_back():
    values = dict(
        a=(1,),
        b=((), [], {}),
        c=-1e-7,
        d={"x.y": 1, 2: "two"},
        e="it's\n\\",
        f=None,
        g=[True, (None,)],
        h={3},
    )
    values["long"] = "word " * 60
    assert typed(there_and_back(values)) == typed(values)
    assert typed(config_from_text(Config(values).pretty_text, "a.pth").to_dict()) == typed(values)
    assert there_and_back(dict(a=float("inf"), b=[-float("inf")])) == dict(a=float("inf"), b=[-float("inf")])


def test_a_registered_class_becomes_its_name():
    back = there_and_back(dict(model=dict(type=EncoderDecoder, decode_head=dict(type="DANetHead"))))
    assert back["model"]["type"] == "mmseg.EncoderDecoder"


@pytest.mark.parametrize(
    "value",
    [print, object(), Path, torch.float16, b"bytes"],
    ids=["function", "object", "class", "dtype", "bytes"],
)
def test_what_is_no_data_is_refused_with_its_place(value):
    with pytest.raises(UserError, match=r"model\.backbone\.1 of the config is .*cannot be stored as text"):
        config_to_text(Config(dict(model=dict(backbone=[1, value]))))
    assert there_and_back(dict(helper=value, model=dict(a=1))) == dict(model=dict(a=1))


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "a = __import__('os').mkdir('made')",
        "a = open('made', 'w')",
        "a = [x for x in (1,)]",
        "a = dict(**{'b': 1})",
        "a = {**{'b': 1}}",
        "a = dict(b=print)",
        "a = f'{print(1)}'",
        "a = 'b' * 10**9",
        "a = b = 1",
        "a[0] = 1",
        "a: int = 1",
        "def a(): pass",
        "_base_ = ['x.py']\n1 +",
        "a = -'b'",
        "a = {[]: 1}",
        "a = " + "[" * 5000,
        "a = '\0'",
        "work_dir = 3",
    ],
)
def test_text_that_is_not_data_is_refused_and_not_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^the config inside best\.pth"):
        config_from_text(text, "best.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "kind", ["os.mkdir", "mmengine.load", "os.path.exists", "made", "mmseg.apis.init_model", "danseg.nothing"]
)
@pytest.mark.parametrize("place", ["model", "backbone", "hook"])
def test_types_that_no_registry_has_are_refused_before_any_import(kind, place, tmp_path, monkeypatch):
    (tmp_path / "made.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    values = dict(
        model=dict(model=dict(type=kind, path="made")),
        backbone=dict(model=dict(type="EncoderDecoder", backbone=dict(type=kind))),
        hook=dict(custom_hooks=[dict(type="EMAHook"), dict(type=kind)]),
    )[place]
    with pytest.raises(UserError, match=f"type='{kind}' is no registered name"):
        there_and_back(values)
    assert "made" not in sys.modules


def test_augmentations_of_albumentations_are_its_own_classes():
    inner = [dict(type="OneOf", transforms=[dict(type="Blur", p=1.0)])]
    values = dict(train_pipeline=[dict(type="Albu", transforms=inner), dict(type="PackSegInputs")])
    assert there_and_back(values) == values
    for kind in ("load", "os.mkdir", "core.Blur"):
        inner[0]["transforms"][0]["type"] = kind
        with pytest.raises(UserError, match=rf"transforms\.0\.type='{kind}' is no registered name"):
            there_and_back(values)
    with pytest.raises(UserError, match="type='Blur' is no registered name"):
        there_and_back(dict(train_pipeline=[dict(type="Blur")]))


def test_scopes_and_constructors_are_looked_at_too():
    with pytest.raises(UserError, match=r"model\._scope_='os' is none"):
        there_and_back(dict(model=dict(type="EncoderDecoder", _scope_="os")))
    with pytest.raises(UserError, match=r"optim_wrapper\.constructor='os\.mkdir' is no registered name"):
        there_and_back(dict(optim_wrapper=dict(constructor="os.mkdir")))


def test_modules_of_others_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'made')!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = "custom_imports = dict(imports=['danseg', 'stranger'])"
    with pytest.raises(UserError, match=r"imports stranger, and a file of weights may not run code"):
        config_from_text(text, "best.pth")
    assert not (tmp_path / "made").exists()
    import stranger  # noqa: F401  (trusted)

    assert config_from_text(text, "best.pth").custom_imports.imports == ["danseg", "stranger"]
    monkeypatch.delitem(sys.modules, "stranger")


def test_what_concerns_the_machine_is_left_out(tmp_path):
    values = dict(
        work_dir=str(tmp_path / "runs"),
        load_from="/home/ann/best.pth",
        from_data=dict(crop_size=dict(value=1, why="--data")),
        train_dataloader=dict(
            dataset=dict(data_root="/home/ann/sets/street", ann_file="/home/ann/sets/street/a.txt")
        ),
    )
    text = config_to_text(Config(values))
    assert "ann/" not in text and str(tmp_path) not in text
    back = config_from_text(text, "best.pth")
    assert back.to_dict() == dict(
        train_dataloader=dict(dataset=dict(data_root="data/street", ann_file="a.txt"))
    )


def test_a_checkpoint_without_a_config_says_what_to_do(tmp_path):
    path = tmp_path / "bare.pth"
    torch.save(dict(state_dict=dict(a=torch.zeros(1)), meta={}), path)
    with pytest.raises(
        UserError, match=r"bare\.pth carries no config: name the config before.*--config CONFIG"
    ):
        carried_config(path)
    torch.save(dict(state_dict=dict(a=torch.zeros(1)), meta=dict(cfg="a = (1,)")), path)
    assert carried_config(path).a == (1,) and carried_config(path).filename == os.fspath(path)
