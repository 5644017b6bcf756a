"""Every shipped config: its name fits, its numbers are those of the published recipe, and it runs.

The expected values below are written down independently of the config files, which compute theirs from bases.

Beside them, merged_configs.json has every value of every merged config, each once, by dotted key: under "all"
what all leaves share, under a data set's name what its leaves share beyond that, under a leaf's name the
rest. After a change that is meant, run ``python tests/test_configs.py`` and read the diff.
"""

import copy
import functools
import itertools
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample

import danseg  # noqa: F401  (registers what the configs name)
from danseg.engine.config.config_file import load_config

ROOT = Path(__file__).resolve().parents[1] / "configs"
LEAVES = {path.stem: path for path in sorted(ROOT.glob("*.py"))}
BASES = {
    kind: sorted((ROOT / "_base_" / kind).glob("*.py")) for kind in ("datasets", "models", "schedules")
} | {"runtime": [ROOT / "_base_" / "runtime.py"]}
RECIPE_BASES = {path.stem: path for path in (ROOT / "_base_" / "recipes").glob("*.py")}
FROZEN = Path(__file__).with_name("merged_configs.json")

WIDTH_KEYS = ("in_channels", "channels", "pam_channels", "isa_channels", "query_channels")


class Data(NamedTuple):
    """The facts about a data set that its name in a config's file name implies."""

    type: str
    root: str
    classes: int
    image: str  # where the trees keep one training image and its label, %s being the split
    label: str
    splits: tuple[str, str]  # names of the training and the validation split
    frame: tuple[int, int]  # height, width of a typical frame
    resized: tuple[int, int]  # the same after the test pipeline's resizing


_CITYSCAPES_IMAGE = "leftImg8bit/%s/town/town_000000_000000_leftImg8bit.png"
_CITYSCAPES_LABEL = "gtFine/%s/town/town_000000_000000_gtFine_labelTrainIds.png"
_ADE = ("images/%s/1.jpg", "annotations/%s/1.png", ("training", "validation"))
DATA = {
    "cityscapes": Data(
        "CityscapesDataset", "data/cityscapes", 19, _CITYSCAPES_IMAGE, _CITYSCAPES_LABEL, ("train", "val"),
        (1024, 2048), (1025, 2049),
    ),
    "cityscapes_512x1024": Data(
        "CityscapesDataset", "data/cityscapes", 19, _CITYSCAPES_IMAGE, _CITYSCAPES_LABEL, ("train", "val"),
        (1024, 2048), (1024, 2048),
    ),
    "ade20k": Data("ADE20KDataset", "data/ade/ADEChallengeData2016", 150, *_ADE, (300, 400), (512, 683)),
    "camvid": Data(
        "CamVidDataset", "data/camvid", 11, "%s/1.png", "%sannot/1.png", ("train", "val"),
        (360, 480), (180, 240),
    ),
    "demo": Data(
        "CityscapesDataset", "data/demo", 19, _CITYSCAPES_IMAGE, _CITYSCAPES_LABEL, ("train", "val"),
        (256, 512), (160, 320),
    ),
    "voc2012": Data(
        "VOC2012Dataset", "data/VOCdevkit/VOC2012", 21, "JPEGImages/%s.jpg", "SegmentationClass/%s.png",
        ("train", "val"), (300, 400), (512, 683),
    ),
    "folder": Data(
        "OwnDataset", "data/mine", 2, "images/%s.png", "masks/%s.png", ("train", "val"),
        (360, 480), (360, 480),
    ),
}  # fmt: skip


class Recipe(NamedTuple):
    """A published training: 4 GPUs, SGD, learning rate from 0.01 to 1e-4 by the poly rule of power 0.9."""

    iterations: int
    images_per_gpu: int
    crop: tuple[int, int]
    window: tuple[int, int] | None  # stride of the sliding window; None: whole frames


class Figures(NamedTuple):
    """Published mIoU at one scale and at six scales with flips, if there is one."""

    single_scale: str
    multi_scale: str | None


# Iterations, batches, crops and figures: mmsegmentation's model zoo.
RECIPES = {
    "cityscapes_512x1024": Recipe(80_000, 2, (512, 1024), None),
    "cityscapes": Recipe(80_000, 2, (769, 769), (513, 513)),
    "ade20k": Recipe(160_000, 4, (512, 512), None),
}
# A row's columns are the recipes above, each with R50 and R101.
_ZOO = {
    "fcn": "73.61/74.24 75.13/75.94  72.64/73.32 75.52/76.61  36.10/38.08 39.91/41.40",
    "danet": "79.34/none 80.41/none  79.27/80.96 80.47/82.02  42.45/43.25 44.17/45.02",
    "nonlocal": "78.01/none 78.93/none  79.05/80.68 79.40/80.85  42.03/43.04 44.63/45.79",
    "ccnet": "79.03/80.16 78.87/79.90  79.29/81.08 79.45/80.66  42.08/43.13 43.71/45.04",
    "psanet": "77.24/78.69 79.31/80.53  79.31/80.91 79.69/80.89  41.67/42.95 43.74/45.38",
    "isanet": "78.68/80.25 80.32/81.58  79.29/80.53 80.61/81.59  42.59/43.07 43.80/45.40",
    "gcnet": "78.48/80.01 79.03/79.84  78.68/80.66 79.18/80.71  42.37/43.52 43.69/45.21",
    "dnlnet": "79.33/none 80.41/none  79.36/80.70 79.41/80.68  41.87/43.01 44.25/45.78",
}
PUBLISHED = {
    f"{network}_r{depth}_{data}": Figures(
        *(None if figure == "none" else figure for figure in pair.split("/"))
    )
    for network, row in _ZOO.items()
    for (data, depth), pair in zip(itertools.product(RECIPES, (50, 101)), row.split(), strict=True)
}
# The same recipes, without a published figure.
UNPUBLISHED = {
    "attention_r50_cityscapes",
    *(f"nonlocal_r50_cityscapes_{mode}" for mode in ("gaussian", "dot_product", "concatenation")),
    *(
        f"{network}_r{depth}_{data}"
        for network in ("epsanet", "psdanet")
        for depth in (50, 101)
        for data in ("cityscapes", "ade20k")
    ),
}

RECIPES["voc2012"] = Recipe(40_000, 4, (512, 512), None)  # mmsegmentation's, whose data are augmented
UNPUBLISHED |= {"danet_r50_voc2012", "fcn_r50_voc2012"}

HEADS = {
    "attention": "AttentionHead",
    "danet": "DANetHead",
    "fcn": "FullyConvolutionalHead",
    "nonlocal": "NonLocalHead",
    "ccnet": "CCNetHead",
    "psanet": "PSANetHead",
    "isanet": "ISANetHead",
    "epsanet": "EPSANetHead",
    "gcnet": "GCNetHead",
    "dnlnet": "DNLNetHead",
    "psdanet": "PSDAHead",
}
FROM_SCRATCH = {f"{network}_r18_camvid" for network in HEADS} | {"danet_r18_demo"}
# For a data set of one's own: sizes, batches and lengths follow from the set.
FOLDER = {f"{network}_r{depth}_folder" for network in HEADS for depth in (18, 50)}
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
NAME = re.compile(
    r"(?P<network>[a-z]+)_r(?P<depth>\d+)_(?P<data>[a-z0-9]+(?:_(?P<crop>\d+x\d+))?)"
    r"(?:_(?P<mode>gaussian|dot_product|concatenation))?"
)

every_leaf = pytest.mark.parametrize("name", LEAVES)
every_published_leaf = pytest.mark.parametrize("name", PUBLISHED)
every_leaf_of_a_recipe = pytest.mark.parametrize("name", [*PUBLISHED, *sorted(UNPUBLISHED)])
every_leaf_from_scratch = pytest.mark.parametrize("name", sorted(FROM_SCRATCH))
every_shallow_leaf = pytest.mark.parametrize("name", [name for name in LEAVES if "_r18_" in name])
# A test proves that the other R101 configs are the R50 ones with a deeper backbone.
every_leaf_to_run = pytest.mark.parametrize(
    "name",
    [name for name in LEAVES if "_r101_" not in name] + ["danet_r101_cityscapes", "epsanet_r101_cityscapes"],
)
every_danet = pytest.mark.parametrize("name", [name for name in LEAVES if name.startswith("danet_")])
every_deep_leaf = pytest.mark.parametrize("name", [name for name in LEAVES if "_r101_" in name])
every_camvid_leaf = pytest.mark.parametrize("name", [name for name in LEAVES if name.endswith("_camvid")])
every_dataset = pytest.mark.parametrize("path", BASES["datasets"], ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    init_default_scope("mmseg")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The tensors are tiny: a second thread would spend its time waiting, and with it the machine's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def read(path: Path) -> Config:
    return Config.fromfile(str(path))


def load(path: Path) -> Config:
    """Load a config anew, so that the test may change it."""
    return copy.deepcopy(read(path))


def parse(name: str) -> re.Match:
    match = NAME.fullmatch(name)
    assert match, f"configs/{name}.py: the name should be NETWORK_rDEPTH_DATASET[_HEIGHTxWIDTH][_MODE].py"
    return match


def recipe_of(name: str) -> str:
    """The recipe that a leaf stands on."""
    match = parse(name)
    return match["data"] + ("_r18" if (match["data"], match["depth"]) == ("folder", "18") else "")


def header(path: Path) -> str:
    """The comment at the start of a config, as one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def flat(node: dict | list, at: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and their values as JSON, which tells True from 1, but no tuple from a list."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        inner = value[0] if value and isinstance(value, list) else value
        if value and isinstance(inner, (dict, list)):
            yield from flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", json.dumps(value)


@functools.cache
def frozen() -> dict[str, dict[str, str]]:
    """The merged configs stored in merged_configs.json."""
    sections = {name: dict(flat(section)) for name, section in json.loads(FROZEN.read_text()).items()}
    return {
        name: sections["all"] | sections[match["data"]] | section
        for name, section in sections.items()
        if (match := NAME.fullmatch(name))
    }


def freeze() -> str:
    """The text of merged_configs.json for the present configs."""
    configs = {name: set(flat(read(path).to_dict())) for name, path in LEAVES.items()}
    sections = {"all": set.intersection(*configs.values())}
    for data in sorted(DATA):
        leaves = [config for name, config in configs.items() if parse(name)["data"] == data]
        sections[data] = set.intersection(*leaves) - sections["all"]
    for name, config in configs.items():
        sections[name] = config - sections["all"] - sections[parse(name)["data"]]
    text = {
        name: ",\n".join(f'"{key}": {value}' for key, value in sorted(section))
        for name, section in sections.items()
    }
    return "{\n" + ",\n".join(f'"{name}": {{\n{section}\n}}' for name, section in text.items()) + "\n}\n"


def build_narrow(cfg: Config) -> torch.nn.Module:
    """The config's network with 8 channels where the backbone begins, all widths in proportion.

    Depths, strides, names and the way widths hang together stay as they are, so that a wrong
    ``in_channels`` or ``in_index`` still fails. The crop that it pads to, and the window, become 65x65.
    """
    model = cfg.copy().model
    model.pretrained = None
    factor = model.backbone.get("base_channels", 64) // 8
    model.backbone.update(base_channels=8, stem_channels=8)
    for head, key in itertools.product((model.decode_head, model.auxiliary_head), WIDTH_KEYS):
        if key in head:
            head[key] = max(1, head[key] // factor)
    if "mask_size" in model.decode_head:
        model.decode_head.mask_size = (9, 9)  # of features at an eighth of the crop
    model.data_preprocessor.size = (65, 65)
    if model.test_cfg.mode == "slide":
        model.test_cfg.update(crop_size=(65, 65), stride=(43, 43))
    torch.manual_seed(0)
    return revert_sync_batchnorm(MODELS.build(model))


def batch(size: tuple[int, int], images: int, classes: int) -> dict[str, list]:
    """Random images and labels, collated as by a data loader."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(images):
        label = torch.randint(0, classes, (1, *size), generator=generator)
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=meta))
    inputs = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for _ in samples]
    return dict(inputs=inputs, data_samples=samples)


def make_tree(root: Path, data: Data, size: tuple[int, int]) -> None:
    """Write one random image and its label for each split where the data set is expected to keep them."""
    rng = np.random.default_rng(0)
    # A repeated patch: noise over the whole frame would take seconds to compress.
    rows, columns = np.arange(size[0]) % 20, np.arange(size[1]) % 20
    for split in data.splits:
        image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)[rows][:, columns]
        label = rng.integers(0, data.classes, (20, 20), dtype=np.uint8)[rows][:, columns]
        for place, content in ((data.image, image), (data.label, label)):
            file = root / (place % split)
            file.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(file), content)
        if data.type == "VOC2012Dataset":
            frames = root / f"ImageSets/Segmentation/{split}.txt"
            frames.parent.mkdir(parents=True, exist_ok=True)
            frames.write_text(f"{split}\n")
        if data.type == "OwnDataset":
            (root / f"{split}.txt").write_text(f"{split}.png\t{split}.png\n")
    if data.type == "OwnDataset":
        lists = {split: f"{split}.txt" for split in data.splits}
        says = dict(danseg=1, images="images", masks="masks", names=["a", "b"], **lists)
        (root / "dataset.yaml").write_text(json.dumps(says))  # which is YAML, too


def build_dataset(loader: dict[str, Any], root: Path, **changes: Any) -> Any:
    """The data set of a loader, with its files under ``root``."""
    # Serialising the list of its one file would run the garbage collector, which takes 0.2 seconds.
    options = dict(data_root=str(root), serialize_data=False)
    return DATASETS.build({**loader["dataset"], **options, **changes})


def scaled(path: Path) -> Config:
    """The base of a data set, all of whose images are fitted into a size."""
    cfg = load(path)
    return cfg if cfg.image_scale else load_config(path, dict(image_scale=(480, 360)))


def steps(pipeline: list[dict]) -> list[str]:
    return [step["type"] for step in pipeline]


# The lists themselves: parametrising over an empty one would pass.


def test_there_are_configs_and_every_one_is_known() -> None:
    assert set(LEAVES) == set(PUBLISHED) | UNPUBLISHED | FROM_SCRATCH | FOLDER == frozen().keys()
    assert HEADS.keys() == {parse(name)["network"] for name in LEAVES}
    assert all(BASES.values()), BASES
    assert {path.stem for path in BASES["datasets"]} == DATA.keys()
    assert RECIPE_BASES.keys() == {recipe_of(name) for name in LEAVES}


# Names, headers, structure.


@every_leaf
def test_name_matches_content(name: str) -> None:
    match, cfg = parse(name), load(LEAVES[name])
    data = DATA[match["data"]]
    assert cfg.model.decode_head.type == HEADS[match["network"]]
    if match["mode"]:
        assert cfg.model.decode_head.mode == match["mode"]
    backbone = cfg.model.backbone
    if match["network"] == "epsanet" and match["depth"] != "18":
        assert (backbone.type, backbone.conv2) == ("VariantResNet", "pyramid_split")
    else:
        assert backbone.type == "ResNetV1c"
    assert backbone.depth == int(match["depth"])
    assert cfg.dataset_type == data.type
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type == data.type
        assert loader.dataset.data_root == cfg.data_root == data.root
    if match["crop"]:
        assert tuple(cfg.crop_size) == tuple(int(side) for side in match["crop"].split("x"))


@every_leaf
def test_leaf_defines_its_network_and_nothing_else(name: str) -> None:
    match = parse(name)
    leaf = runpy.run_path(str(LEAVES[name]))
    leaf = {key: value for key, value in leaf.items() if not key.startswith("__")}
    base, model = leaf.pop("_base_"), leaf.pop("model")
    backbone, head = model.get("backbone", {}), model.get("decode_head", {})
    if match["depth"] == "101":
        assert base == f"./{name.replace('_r101_', '_r50_')}.py"
        assert backbone == dict(depth=101) and model.keys() <= {"backbone", "pretrained"}
    elif match["mode"]:
        assert base == f"./{name.removesuffix('_' + match['mode'])}.py"
        assert model == dict(decode_head=dict(mode=match["mode"]))
    else:
        assert base == f"./_base_/recipes/{recipe_of(name)}.py"
        assert model.keys() == {"decode_head"} or model.keys() == {"decode_head", "backbone", "pretrained"}
        assert backbone.keys() <= {"type", "conv2"}
    recipe = load(RECIPE_BASES[recipe_of(name)]).model.decode_head
    assert not set(head) & set(recipe)
    # The modules to recompute are named after the backbone's.
    assert leaf.keys() == ({"recompute"} if "type" in backbone else set())


def test_bases_are_of_this_project() -> None:
    # One of another package, PACKAGE::PATH, would tie the config to its installation.
    assert not [path.name for path in ROOT.rglob("*.py") if "::" in path.read_text()]


@pytest.mark.parametrize("kinds", list(itertools.combinations(BASES, 2)), ids="-".join)
def test_bases_of_different_kinds_own_disjoint_keys(kinds: tuple[str, str]) -> None:
    first, second = ({key for path in BASES[kind] for key in load(path)} for kind in kinds)
    assert first
    assert not first & second


@every_dataset
def test_dataset_base_exports_what_others_read(path: Path) -> None:
    cfg = load(path)
    assert {"dataset_type", "data_root", "num_classes", "crop_size", "prepare_command"} <= set(cfg)
    assert cfg.prepare_command.startswith("python tools/prepare_dataset.py ")
    assert cfg.num_classes == DATA[path.stem].classes
    if cfg.dataset_type != "OwnDataset":  # whose classes a file names
        assert cfg.num_classes == len(DATASETS.get(cfg.dataset_type).METAINFO["classes"])


@every_published_leaf
def test_header_names_the_published_figure(name: str) -> None:
    figures = PUBLISHED[name]
    several = f"{figures.multi_scale} at six scales with flips" if figures.multi_scale else "none at several"
    published = f"Published: mIoU {figures.single_scale} at one scale, {several} (mmsegmentation model zoo)"
    assert published in header(LEAVES[name])


@every_leaf_of_a_recipe
def test_header_names_the_depth_the_crop_and_the_total_batch(name: str) -> None:
    match, text = parse(name), header(LEAVES[name])
    recipe = RECIPES[match["data"]]
    assert f"{'EPSANet' if match['network'] == 'epsanet' else 'ResNet'}-{match['depth']}" in text
    assert f"crops of {recipe.crop[0]}x{recipe.crop[1]}" in text
    images = recipe.images_per_gpu
    assert f"{recipe.iterations // 1000}k iterations of {4 * images} images (4 GPUs x {images})" in text


@pytest.mark.parametrize("name", sorted(UNPUBLISHED | FROM_SCRATCH | FOLDER))
def test_header_says_that_no_figure_is_published(name: str) -> None:
    assert "No figure is published" in header(LEAVES[name])


@every_leaf_from_scratch
def test_header_names_the_total_batch_from_scratch(name: str) -> None:
    total = re.search(r"trained from scratch in total batches of (\d+)", header(LEAVES[name]))
    assert total and int(total[1]) == load(LEAVES[name]).train_dataloader.batch_size


# Numbers.


@every_leaf
def test_merged_config_is_unchanged(name: str) -> None:
    before, now = frozen()[name], dict(flat(read(LEAVES[name]).to_dict()))
    changes = [
        f"{key}: {before.get(key, 'nothing')} -> {now.get(key, 'nothing')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    assert not changes, "\n".join([f"{name} is not what {FROZEN.name} says:", *changes])


@every_leaf_of_a_recipe
def test_published_recipe(name: str) -> None:
    recipe, cfg = RECIPES[parse(name)["data"]], load(LEAVES[name])
    assert cfg.train_cfg == dict(
        type="IterBasedTrainLoop", max_iters=recipe.iterations, val_interval=recipe.iterations // 10
    )
    assert cfg.param_scheduler == [
        dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end=recipe.iterations, by_epoch=False)
    ]
    assert cfg.optim_wrapper.optimizer == dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=5e-4)
    assert "paramwise_cfg" not in cfg.optim_wrapper
    assert cfg.train_dataloader.batch_size == recipe.images_per_gpu
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=4 * recipe.images_per_gpu)

    loading, *rest = cfg.train_dataloader.dataset.pipeline
    assert steps(rest) == ["FastPhotoMetricDistortion", "PackSegInputs"]
    assert loading == dict(
        type="LoadTrainingCrop",
        scale=cfg.image_scale,
        ratio_range=(0.5, 2.0),
        crop_size=recipe.crop,
        cat_max_ratio=0.75,
        flip_prob=0.5,
    )
    assert tuple(cfg.model.data_preprocessor.size) == recipe.crop

    if recipe.window:
        assert cfg.model.test_cfg == dict(mode="slide", crop_size=recipe.crop, stride=recipe.window)
    else:
        assert cfg.model.test_cfg == dict(mode="whole")
    backbone = cfg.model.backbone
    # Pretrained weights are published only for ResNet.
    weights = f"open-mmlab://resnet{backbone.depth}_v1c" if backbone.type == "ResNetV1c" else None
    assert cfg.model.pretrained == weights
    head, auxiliary = cfg.model.decode_head, cfg.model.auxiliary_head
    assert (head.in_channels, head.channels) == (2048, 512)
    assert (auxiliary.in_channels, auxiliary.channels) == (1024, 256)
    for part in (cfg.model.backbone, head, auxiliary):
        assert part.norm_cfg == dict(type="SyncBN", requires_grad=True)
    # Sides of 8n + 1 are resized with their corners aligned, the others without.
    assert head.align_corners is auxiliary.align_corners is (recipe.crop == (769, 769))


@every_leaf
def test_what_every_network_shares(name: str) -> None:
    cfg = load(LEAVES[name])
    model, head, auxiliary = cfg.model, cfg.model.decode_head, cfg.model.auxiliary_head
    assert (model.backbone.strides, model.backbone.dilations) == ((1, 2, 1, 1), (1, 1, 2, 4))
    assert model.backbone.contract_dilation is True
    assert (head.in_index, auxiliary.in_index) == (3, 2)
    cross_entropy = dict(type="CrossEntropyLoss", use_sigmoid=False)
    assert head.loss_decode == cross_entropy | dict(loss_weight=1.0)
    assert auxiliary.loss_decode == cross_entropy | dict(loss_weight=0.4)
    assert (auxiliary.type, auxiliary.num_convs, auxiliary.concat_input) == (
        "FullyConvolutionalHead",
        1,
        False,
    )
    assert head.dropout_ratio == auxiliary.dropout_ratio == 0.1
    assert head.align_corners is auxiliary.align_corners
    if head.type == "DANetHead":
        assert head.with_pam is head.with_cam is True
        assert head.channels == 8 * head.pam_channels
    loading = cfg.train_dataloader.dataset.pipeline[0]
    assert tuple(loading.crop_size) == tuple(cfg.crop_size) == tuple(model.data_preprocessor.size)
    classes = DATA[parse(name)["data"]].classes
    assert head.num_classes == auxiliary.num_classes == cfg.num_classes == classes
    assert cfg.val_evaluator == cfg.test_evaluator
    assert cfg.tta_model.type == "LeanTTAModel"


@every_leaf
def test_rates_and_intervals_follow_from_the_length(name: str) -> None:
    cfg = load(LEAVES[name])
    length = cfg.train_cfg.max_iters
    spans = [(rate.begin, rate.end) for rate in cfg.param_scheduler]
    assert [begin for begin, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert all(begin < end for begin, end in spans)
    assert spans[-1][1] == length
    assert not any(rate.by_epoch for rate in cfg.param_scheduler)
    checkpoint = cfg.default_hooks.checkpoint
    assert (checkpoint.save_best, checkpoint.rule, checkpoint.by_epoch) == ("mIoU", "greater", False)
    assert checkpoint.interval == cfg.train_cfg.val_interval <= length
    assert length % checkpoint.interval == 0  # the last iteration is validated and kept
    assert cfg.train_dataloader.sampler == dict(type="InfiniteSampler", shuffle=True)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.sampler == dict(type="DefaultSampler", shuffle=False)
        assert loader.batch_size == 1


@every_shallow_leaf
def test_from_scratch_recipe(name: str) -> None:
    cfg = load(LEAVES[name])
    assert cfg.model.pretrained is None
    assert steps(cfg.param_scheduler) == ["LinearLR", "PolyLR"]
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=cfg.train_dataloader.batch_size)
    for part in (cfg.model.backbone, cfg.model.decode_head, cfg.model.auxiliary_head):
        assert part.norm_cfg == dict(type="BN", requires_grad=True)


@every_camvid_leaf
def test_camvid_networks_differ_in_the_head_alone(name: str) -> None:
    danet, other = load(LEAVES["danet_r18_camvid"]), load(LEAVES[name])
    heads = [cfg.model.pop("decode_head") for cfg in (danet, other)]
    recipe = load(RECIPE_BASES["camvid"]).model.decode_head
    assert danet.to_dict() == other.to_dict()
    assert all(head[key] == value for key, value in recipe.items() for head in heads)


def test_camvid_baseline_weighs_what_danet_weighs() -> None:
    heads = [load(LEAVES[f"{network}_r18_camvid"]).model.decode_head for network in ("danet", "fcn")]
    weights = [sum(p.numel() for p in MODELS.build(head).parameters()) for head in heads]
    assert weights[0] == pytest.approx(weights[1], rel=0.02)


@every_deep_leaf
def test_r101_is_r50_with_a_deeper_backbone(name: str) -> None:
    deep, shallow = load(LEAVES[name]), load(LEAVES[name.replace("_r101_", "_r50_")])
    for cfg in (deep, shallow):
        cfg.model.pop("pretrained")
    assert (deep.model.backbone.pop("depth"), shallow.model.backbone.pop("depth")) == (101, 50)
    assert deep.to_dict() == shallow.to_dict()


@every_danet
def test_options_reach_what_recipes_computed(name: str) -> None:
    options = dict(crop_size=(65, 129), data_root="/elsewhere", num_classes=7)
    cfg = load_config(LEAVES[name], options)
    model, loaders = cfg.model, (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    assert model.data_preprocessor.size == cfg.train_dataloader.dataset.pipeline[0].crop_size == (65, 129)
    window = model.test_cfg.get("crop_size"), model.test_cfg.get("stride")
    assert window == (((65, 129), (43, 86)) if model.test_cfg.mode == "slide" else (None, None))
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == 7
    assert {loader.dataset.data_root for loader in loaders} == {"/elsewhere"}


# Running.


@every_leaf_to_run
def test_crop_runs_through_loss_and_predict(name: str) -> None:
    cfg = load(LEAVES[name])
    network = build_narrow(cfg)
    blocks = tuple(len(getattr(network.backbone, layer)) for layer in network.backbone.res_layers)
    assert blocks == BLOCKS[cfg.model.backbone.depth]
    early = ("stem", "layer1", "layer2")
    assert set(cfg.recompute) == {f"backbone.{part}" for part in early if hasattr(network.backbone, part)}

    network.train()
    data = network.data_preprocessor(batch((49, 65), 2, cfg.num_classes), training=True)
    assert data["inputs"].shape == (2, 3, 65, 65)  # padded to the crop
    losses = network(**data, mode="loss")
    weighed = {key: value for key, value in losses.items() if "loss" in key}
    branches = 3 if cfg.model.decode_head.type == "DANetHead" else 1
    assert len(weighed) == branches + 1
    assert all(torch.isfinite(value) and value > 0 for value in weighed.values())
    sum(weighed.values()).backward()
    unused = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert not unused

    network.eval()
    windows = []
    network.backbone.register_forward_hook(lambda module, inputs, out: windows.append(inputs[0].shape[-2:]))
    with torch.no_grad():
        (result,) = network.test_step(batch((65, 97), 1, cfg.num_classes))
    assert result.seg_logits.data.shape == (cfg.num_classes, 65, 97)
    assert result.pred_sem_seg.data.shape == (1, 65, 97)
    assert windows == ([(65, 65), (65, 65)] if cfg.model.test_cfg.mode == "slide" else [(65, 97)])


@every_leaf
def test_hooks_metrics_and_test_time_model_are_registered(name: str) -> None:
    cfg = load(LEAVES[name])
    for hook in cfg.default_hooks.values():
        assert HOOKS.get(hook.type), hook.type
    METRICS.build(cfg.val_evaluator)
    assert MODELS.get(cfg.tta_model.type)


@every_dataset
def test_pipelines_of_a_dataset(path: Path, tmp_path: Path) -> None:
    cfg, data = load(path), DATA[path.stem]
    make_tree(tmp_path, data, data.frame)

    training = build_dataset(cfg.train_dataloader, tmp_path)
    assert len(training) == 1
    sample = training[0]
    shape, label = sample["inputs"].shape, sample["data_samples"].gt_sem_seg.data
    assert shape[1:] == label.shape[1:]
    assert all(side <= crop for side, crop in zip(shape[1:], cfg.crop_size, strict=True))
    assert set(label.unique().tolist()) <= {*range(cfg.num_classes), 255}

    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        sample = build_dataset(loader, tmp_path)[0]
        assert tuple(sample["inputs"].shape[1:]) == data.resized
        # The scores are computed at the label's own size.
        assert tuple(sample["data_samples"].gt_sem_seg.data.shape[1:]) == data.frame
        assert sample["data_samples"].ori_shape == data.frame


@every_dataset
def test_test_time_augmentation_of_a_dataset(path: Path, tmp_path: Path) -> None:
    cfg, data = scaled(path), DATA[path.stem]
    augmentation = cfg.tta_pipeline[1]
    assert steps(cfg.tta_pipeline) == ["LoadImageFromFile", "TestTimeAug"]
    scales, flips, labels, packs = augmentation.transforms
    assert [step.prob for step in flips] == [0.0, 1.0]
    assert (steps(labels), steps(packs)) == (["LoadAnnotations"], ["PackSegInputs"])
    ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert len(scales) == len(ratios)
    one = next(step.scale for step in cfg.val_dataloader.dataset.pipeline if step.type == "Resize")
    for step, ratio in zip(scales, ratios, strict=True):
        assert (step.type, step.keep_ratio) == ("Resize", True)
        assert all(abs(side - ratio * whole) < 1 for side, whole in zip(step.scale, one, strict=True))

    # A small frame: what is tested is that the transforms fit together, flips included.
    make_tree(tmp_path, data, tuple(side // 4 for side in data.frame))
    for step in scales:
        step.scale = tuple(side // 8 for side in step.scale)
    sample = build_dataset(cfg.val_dataloader, tmp_path, pipeline=cfg.tta_pipeline)[0]
    assert len(sample["inputs"]) == len(sample["data_samples"]) == 12
    assert [item.flip for item in sample["data_samples"]] == [False, True] * 6
    for plain, flipped in zip(sample["inputs"][::2], sample["inputs"][1::2], strict=True):
        assert torch.equal(plain.flip(-1), flipped)


@every_dataset
@pytest.mark.parametrize("size", [(90, 200), (200, 90), (1024, 2048)], ids=str)
def test_test_time_augmentation_resizes_as_the_published_figures_were_measured(
    path: Path, size: tuple
) -> None:
    """The image fits into multiples of the test scale: its long side into the long one, the short alike."""
    cfg = scaled(path)
    image = np.zeros((*size, 3), np.uint8)
    for ratio, step in zip(cfg.tta_ratios, cfg.tta_pipeline[1].transforms[0], strict=True):
        short, long = sorted(int(side * ratio) for side in cfg.image_scale)
        factor = min(long / max(size), short / min(size))
        resized = TRANSFORMS.build(step)(dict(img=image))["img"]
        assert resized.shape[:2] == tuple(int(side * factor + 0.5) for side in size)


@every_dataset
def test_transforms_are_registered(path: Path) -> None:
    cfg = load(path)
    for name in steps(cfg.train_pipeline + cfg.test_pipeline + cfg.tta_pipeline):
        assert TRANSFORMS.get(name), name


if __name__ == "__main__":
    FROZEN.write_text(freeze())
