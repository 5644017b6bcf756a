"""A name that a base computes with acts wherever it is set: in a child, its child, or on the command line."""

import textwrap
from pathlib import Path

import pytest
from mmengine.config import Config

from danseg.engine.config.config_chain import Chain
from danseg.engine.config.config_file import load_config
from danseg.engine.config.config_names import READ
from danseg.errors import UserError

CONFIGS = Path(__file__).parents[3] / "configs"
LEAVES = sorted(CONFIGS.glob("*.py"))
CITYSCAPES = CONFIGS / "danet_r101_cityscapes.py"
CAMVID = CONFIGS / "danet_r18_camvid.py"
# One leaf of every recipe: the 512x1024 variant, for one, has a data set that is itself a child.
RECIPES = {
    path.read_text().split("recipes/")[1].split(".py")[0]: path
    for path in LEAVES
    if "recipes/" in path.read_text()
}
SOURCES = ("child", "grandchild", "option")


def from_source(child, source, base, name, value):
    """A config in which a name is set in one of the places where it can be."""
    line = f"{name} = {value!r}"
    if source == "option":
        return load_config(base, {name: value})
    return child(base, line) if source == "child" else child(base, line, "work_dir = 'w'")


def without(config, *names):
    return {name: value for name, value in config.to_dict().items() if name not in names}


@pytest.mark.parametrize("path", [CITYSCAPES, *RECIPES.values()], ids=lambda path: path.stem)
def test_what_is_shipped_is_what_mmengine_makes_of_it(path):
    assert load_config(path).to_dict() == Config.fromfile(path).to_dict()


# Every recipe, every source, but not each with each.
@pytest.mark.parametrize(
    ("recipe", "source"),
    [
        *((recipe, "child") for recipe in sorted(RECIPES)),
        ("cityscapes_512x1024", "grandchild"),
        ("demo", "option"),
    ],
)
def test_what_all_data_sets_export_acts(child, source, recipe):
    base = RECIPES[recipe]
    plain = load_config(base)

    config = from_source(child, source, base, "crop_size", (65, 129))
    assert config.train_dataloader.dataset.pipeline[0].crop_size == (65, 129)
    assert config.model.data_preprocessor.size == (65, 129)
    if plain.model.test_cfg.mode == "slide":
        assert config.model.test_cfg == dict(mode="slide", crop_size=(65, 129), stride=(43, 86))

    config = from_source(child, source, base, "image_scale", (200, 100))
    loaders = config.train_dataloader, config.val_dataloader, config.test_dataloader
    assert [
        loader.dataset.pipeline[index].scale for loader, index in zip(loaders, (0, 1, 1), strict=True)
    ] == [  # noqa: E501
        (200, 100)
    ] * 3
    assert [step.scale for step in config.tta_pipeline[1].transforms[0]] == [
        (100, 50), (150, 75), (200, 100), (250, 125), (300, 150), (350, 175),
    ]  # fmt: skip

    config = from_source(child, source, base, "data_root", "/else where")
    loaders = config.train_dataloader, config.val_dataloader, config.test_dataloader
    assert {loader.dataset.data_root for loader in loaders} == {"/else where"}

    config = from_source(child, source, base, "num_classes", 7)
    assert config.model.decode_head.num_classes == config.model.auxiliary_head.num_classes == 7

    config = from_source(child, source, base, "max_iters", 60)
    assert config.train_cfg.max_iters == config.param_scheduler[-1].end == 60
    assert (
        config.train_cfg.val_interval
        == config.default_hooks.checkpoint.interval
        == (20 if "demo" in recipe else 6)
    )
    assert (
        len(config.param_scheduler) == 1
        or config.param_scheduler[0].end == config.param_scheduler[1].begin == 3
    )


def helpers(path):
    config = load_config(path)
    return sorted(name for name in config if name not in READ)


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path in RECIPES.values() for name in helpers(path)]
)
def test_every_other_name_of_a_base_acts_or_is_refused(child, path, name):
    value = Config.fromfile(path)[name]
    if isinstance(value, str):
        new = value + "x"
    elif isinstance(value, dict):
        new = {**value.to_dict(), "more": 1}
    elif isinstance(value, list):
        new = [*(one.to_dict() for one in value), {"type": "More"}]
    elif value is None:
        new = (64, 32)
    else:
        new = value[:-1] + (value[-1] * 2,) if isinstance(value, tuple) else value // 2
    assert without(child(path, f"{name} = {new!r}"), name) != without(load_config(path), name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # What a file takes from its base follows the names that the file sets.
        ("crop_size = (64, 64)\ntrain_pipeline = [dict(_base_.train_pipeline[0], flip_prob=0.0), *_base_.train_pipeline[1:]]",  # noqa: E501
         dict(crop_size=(64, 64), flip_prob=0.0)),
        ("crop_size = tuple(side - 1 for side in _base_.crop_size)", dict(crop_size=(768, 768))),
        ("image_scale = (100, 50)", dict(scale=(100, 50))),
        # Text in double braces, as in configs of mmseg.
        ("half = {{_base_.crop_size}}\ncrop_size = (64, 64)", dict(crop_size=(64, 64))),
        # What is set in its place wins, to the value of the base as well.
        ("crop_size = (64, 64)\nmodel = dict(data_preprocessor=dict(size=(96, 96)))", dict(size=(96, 96))),
        ("crop_size = (64, 64)\nmodel = dict(data_preprocessor=dict(size=(769, 769)))", dict(size=(769, 769))),  # noqa: E501
        ("crop_size = (64, 64)\nmodel = dict(test_cfg=dict(stride=(8, 8)))", dict(stride=(8, 8), crop_size=(64, 64))),  # noqa: E501
        # A list of the file's own is its own.
        ("crop_size = (64, 64)\ntrain_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadTrainingCrop', crop_size=(769, 769))]))",  # noqa: E501
         dict(crop_size=(769, 769), size=(64, 64))),
        # Changed in place.
        ("train_pipeline = _base_.train_pipeline\ntrain_pipeline.insert(0, dict(type='First'))", dict(first="First")),  # noqa: E501
        ("_base_.train_pipeline[0].crop_size = (64, 64)", dict(crop_size=(64, 64))),
    ],
)  # fmt: skip
def test_what_a_child_takes_and_sets(child, text, expected):
    config = child(CITYSCAPES, text)
    pipeline, preprocessor = config.train_dataloader.dataset.pipeline, config.model.data_preprocessor
    loading = next(step for step in pipeline if step.type == "LoadTrainingCrop")
    found = {
        "size": preprocessor.size,
        "stride": config.model.test_cfg.stride,
        "first": pipeline[0].type,
        **loading,
    }
    assert {name: found[name] for name in expected} == expected
    assert [step.type for step in pipeline].count("First") == ("first" in expected)


def test_a_child_of_a_child_and_an_option_win_in_this_order(child):
    texts = ("crop_size = (64, 64)", "crop_size = (48, 80)\nmax_iters = 100", "crop_size = (32, 32)")
    assert child(CITYSCAPES, *texts[:2]).model.data_preprocessor.size == (48, 80)
    config = child(CITYSCAPES, *texts)
    assert config.model.data_preprocessor.size == config.model.test_cfg.crop_size == (32, 32)
    assert config.train_cfg.max_iters == 100
    config = child(
        CITYSCAPES, *texts, options={"crop_size": (16, 24), "norm_cfg.type": "BN", "tta_ratios": (1.0,)}
    )
    assert (
        config.model.data_preprocessor.size
        == config.train_dataloader.dataset.pipeline[0].crop_size
        == (16, 24)
    )
    assert (
        config.model.backbone.norm_cfg
        == config.model.decode_head.norm_cfg
        == dict(type="BN", requires_grad=True)
    )
    assert len(config.tta_pipeline[1].transforms[0]) == 1


def test_several_bases(tmp_path):
    base = CONFIGS / "_base_"
    files = ["models/dilated_resnet.py", "datasets/camvid.py", "schedules/schedule_40k.py", "runtime.py"]
    path = tmp_path / "leaf.py"
    path.write_text(
        f"_base_ = {[str(base / name) for name in files]}\n"
        "crop_size = (96, 96)\nnorm_cfg = dict(type='BN')\nmax_iters = 50\n"
        "model = dict(data_preprocessor=dict(size=_base_.crop_size))\n"
    )
    config = load_config(path)
    assert config.train_dataloader.dataset.pipeline[0].crop_size == (96, 96)
    assert config.model.auxiliary_head.norm_cfg.type == "BN"
    assert config.param_scheduler[0].end == 50
    path.write_text(f"_base_ = {[str(base / files[1]), str(base / 'datasets/demo.py')]}\n")
    with pytest.raises(UserError, match=r"leaf\.py: several of its bases set .*crop_size"):
        load_config(path)


def test_a_config_that_shares_nothing_with_ours(tmp_path):
    # As mmseg's own are written: a base that exports a crop, a child that computes all of it anew.
    (tmp_path / "data.py").write_text(
        textwrap.dedent("""
        crop_size = (512, 1024)
        train_pipeline = [dict(type="RandomCrop", crop_size=crop_size)]
        test_pipeline = [dict(type="Resize", scale=(2048, 1024))]
        train_dataloader = dict(batch_size=2, dataset=dict(type="A", pipeline=train_pipeline))
        val_dataloader = dict(dataset=dict(type="A", pipeline=test_pipeline))
    """)
    )
    (tmp_path / "leaf.py").write_text(
        textwrap.dedent("""
        _base_ = "./data.py"
        import math
        crop_size = (769, 769)
        batch = 4
        data_preprocessor = dict(size=crop_size)
        model = dict(data_preprocessor=data_preprocessor)
        train_pipeline = [
            dict(type="RandomCrop", crop_size=crop_size), dict(type="{{ fileBasenameNoExtension }}")
        ]
        train_dataloader = dict(batch_size=batch, dataset=dict(pipeline=train_pipeline))
        note = "mine"
    """)
    )
    config = load_config(tmp_path / "leaf.py")
    assert config.to_dict() == Config.fromfile(tmp_path / "leaf.py").to_dict()
    assert config.train_dataloader.dataset.pipeline[1].type == "leaf"
    config = load_config(tmp_path / "leaf.py", {"crop_size": (64, 64)})
    assert (
        config.model.data_preprocessor.size
        == config.train_dataloader.dataset.pipeline[0].crop_size
        == (64, 64)
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("value", [32, (32, 0)])
def test_a_crop_that_is_not_two_numbers_is_refused(child, source, value):
    with pytest.raises(UserError, match=r"crop_size=.*give height and width"):
        from_source(child, source, CITYSCAPES, "crop_size", value)


def test_what_a_base_cannot_compute_with_is_named(child):
    with pytest.raises(
        UserError, match=r"--cfg-options max_iters='long': .*cannot compute with it: TypeError"
    ):
        load_config(CITYSCAPES, {"max_iters": "long"})
    with pytest.raises(UserError, match=r"child_0\.py sets max_iters='long', with which its bases cannot"):
        child(CITYSCAPES, "max_iters = 'long'")


@pytest.mark.parametrize("name", ["base.yaml", "base.yml", "base.json"])
def test_a_base_that_is_no_program_is_not_read(tmp_path, name):
    """mmengine's reader of YAML runs what a file names."""
    canary = tmp_path / "canary"
    (tmp_path / name).write_text(f"x: !!python/object/apply:builtins.eval [\"open('{canary}', 'w')\"]\n")
    (tmp_path / "config.py").write_text(f"_base_ = ['{name}']\n")
    with pytest.raises(UserError, match=f"its base .*{name} is no Python file"):
        load_config(tmp_path / "config.py")
    assert not canary.exists()


def test_names_that_change_one_another_for_ever_are_refused(tmp_path):
    (tmp_path / "base.py").write_text("a = 1\nb = a + 1\n")
    (tmp_path / "leaf.py").write_text("_base_ = './base.py'\na = _base_.b + 1\nb = _base_.a\n")
    with pytest.raises(UserError, match=r"leaf\.py: a, b change with one another"):
        Chain(tmp_path / "leaf.py").read()
