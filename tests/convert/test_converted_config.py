import ast

import pytest

from danseg.convert.converted_config import _RESNETS, DATASETS, _code
from danseg.convert.from_mmseg import _NETWORKS
from danseg.engine.config.config_file import load_config
from danseg.recipes import recipes
from danseg.shipped import shipped

RECIPES = recipes(shipped("configs"))


def test_numbers_of_classes_are_those_of_the_recipes():
    datasets = {one.dataset: one.name for one in RECIPES if one.dataset not in ("folder", "demo")}
    assert {load_config(name).num_classes: dataset for dataset, name in datasets.items()} == DATASETS


def test_every_data_set_has_a_recipe_to_stand_on():
    for dataset in (*DATASETS.values(), "folder"):
        assert (shipped("configs") / "_base_" / "recipes" / f"{dataset}.py").is_file()


def test_networks_are_called_as_the_recipes_call_them():
    assert set(_NETWORKS.values()) <= {one.network for one in RECIPES}


def test_resnets_are_told_from_other_backbones():
    kinds = {load_config(one.name).model.backbone.type for one in RECIPES if one.name.endswith("_r50_ade20k")}
    assert kinds <= set(_RESNETS)


@pytest.mark.parametrize(
    "value",
    [
        dict(one=("x",), quotes="a'b\"c\\d\n\u2028é", none=(), words={"is": 1}, lists=[("a", [1])]),
        dict(a=(1, 2), b=[1.5, None], c="text", d=dict(e={"x.y": 1}, f=dict())),
        dict(long=dict(words=["a" * 30] * 4, others=dict(more="b" * 60)), _delete_=True),
    ],
)
def test_settings_are_written_as_code(value):
    def read(node: ast.expr):
        if isinstance(node, ast.Call):
            return {one.arg: read(one.value) for one in node.keywords}
        return ast.literal_eval(node)

    text = _code(value, "")
    assert read(ast.parse(text, mode="eval").body) == value
