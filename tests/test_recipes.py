"""What the files of configs/ say of themselves, read without running them."""

import json
import re
from pathlib import Path

import pytest

from danseg.recipes import metafile, read_header, read_recipe, recipes

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
FROZEN = json.loads((ROOT / "tests" / "merged_configs.json").read_text())
FILES = sorted(CONFIGS.glob("*.py"))

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def frozen(path: Path, key: str):
    """A value of the merged config, from the file that holds them all."""
    parts = path.stem.split("_")
    sections = [path.stem, "_".join(parts[2:]), parts[2], "all"]
    return next((FROZEN[name][key] for name in sections if key in FROZEN.get(name, ())), None)


def test_all_are_read():
    assert [recipe.path for recipe in recipes(CONFIGS)] == FILES and len(FILES) > 70


@every_file
def test_schedule_and_crop_are_those_of_the_merged_config(path):
    recipe = read_recipe(path)
    if recipe.dataset == "folder":  # they follow from the data
        assert (recipe.iterations, recipe.batch, recipe.crop) == (None, None, None)
        return
    assert recipe.iterations == frozen(path, "train_cfg.max_iters")
    assert recipe.batch == frozen(path, "auto_scale_lr.base_batch_size")
    assert list(recipe.crop) == frozen(path, "crop_size")


@every_file
def test_a_header_gives_a_figure_or_says_that_there_is_none(path):
    recipe = read_recipe(path)
    none = "No figure is published" in recipe.header or recipe.dataset == "folder"
    assert none == (recipe.published == (None, None))
    assert (recipe.source is None) == (recipe.published == (None, None))
    numbers = [float(number) for number in re.findall(r"\d\d\.\d\d\b", recipe.header)]
    assert [figure for figure in recipe.published if figure is not None] == numbers


def test_figures():
    danet = read_recipe(CONFIGS / "danet_r101_cityscapes.py")
    assert danet.published == (80.47, 82.02) and danet.source == "mmsegmentation model zoo"
    assert read_recipe(CONFIGS / "danet_r50_cityscapes_512x1024.py").published == (79.34, None)
    assert danet[3:9] == ("danet", "cityscapes", 80000, 8, (769, 769), (80.47, 82.02))


def test_what_is_computed_is_unknown(tmp_path):
    (tmp_path / "base.py").write_text(
        "length = 3\nmax_iters = 2 * length\nauto_scale_lr = dict(enable=False)\n"
    )
    (tmp_path / "net_r18_own.py").write_text("# One.\n#   Two.\n\n# Three.\n_base_ = ['./base.py']\n")
    recipe = read_recipe(tmp_path / "net_r18_own.py")
    assert (recipe.iterations, recipe.batch, recipe.crop) == (None, None, None)
    assert recipe.header == read_header(recipe.path) == "One. Two."
    (tmp_path / "net_r18_folder.py").write_text("max_iters = 3\ncrop_size = (4, 4)\n")
    assert read_recipe(tmp_path / "net_r18_folder.py")[5:8] == (None, None, None)


def test_the_metafile_has_every_recipe_in_the_form_of_the_mm_family():
    content = metafile(CONFIGS)
    assert json.loads(json.dumps(content)) == content
    models = {model["Name"]: model for model in content["Models"]}
    assert sorted(models) == [path.stem for path in FILES]
    collections = {one["Name"] for one in content["Collections"]}
    for name, model in models.items():
        assert model["Config"] == f"configs/{name}.py" and model["In Collection"] in collections
    [result] = models["danet_r101_cityscapes"]["Results"]
    assert result["Metrics"] == {"mIoU": 80.47, "mIoU(ms+flip)": 82.02}
    assert "Results" not in models["danet_r18_demo"]
