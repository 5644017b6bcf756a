"""Classes and colours are those of the built data set, whatever its config says and leaves out."""

import pytest
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset, CityscapesDataset
from mmseg.registry import DATASETS

from danseg.datasets.check import check_dataset
from danseg.datasets.metainfo import built_metainfo, complete_metainfo, metainfo_of
from danseg.errors import UserError

CITYSCAPES = dict(
    zip(CityscapesDataset.METAINFO["classes"], CityscapesDataset.METAINFO["palette"], strict=True)
)


def cityscapes(**metainfo) -> dict:
    return dict(type="CityscapesDataset", data_root="nowhere", metainfo=metainfo)


def named(**metainfo) -> dict:
    return dict(type="BaseSegDataset", data_root="nowhere", metainfo=metainfo)


def segmentation_datasets() -> list[str]:
    """Every data set that mmseg or danseg registers and that has classes of its own."""
    DATASETS.get("CamVidDataset")
    return sorted(
        name
        for name, cls in DATASETS.module_dict.items()
        if isinstance(cls, type) and issubclass(cls, BaseSegDataset) and cls.METAINFO.get("classes")
    )


@pytest.mark.parametrize("kind", segmentation_datasets())
def test_every_data_set_without_its_files(kind):
    """Also those of mmseg that assert in their ``__init__`` that their folders exist."""
    cls = DATASETS.get(kind)
    needed = dict(ann_file="nowhere.txt") if kind.startswith(("Pascal", "LIP")) else {}
    meta = built_metainfo(dict(type=kind, data_root="nowhere", **needed))
    assert list(meta["classes"]) == list(cls.METAINFO["classes"])
    assert len(meta["palette"]) == len(meta["classes"])
    if len(cls.METAINFO.get("palette", ())) == len(meta["classes"]):
        assert [list(colour) for colour in meta["palette"]] == [list(c) for c in cls.METAINFO["palette"]]


def test_there_are_data_sets():
    kinds = segmentation_datasets()
    assert len(kinds) > 15 and {"CamVidDataset", "ADE20KDataset", "PascalVOCDataset"} <= set(kinds)


def test_a_part_of_the_classes_keeps_their_colours():
    meta = built_metainfo(cityscapes(classes=("person", "road", "car")))
    assert meta["classes"] == ("person", "road", "car")
    assert meta["palette"] == [tuple(CITYSCAPES[name]) for name in ("person", "road", "car")]
    assert meta["label_map"] == {
        old: {"person": 0, "road": 1, "car": 2}.get(name, 255) for old, name in enumerate(CITYSCAPES)
    }


def test_all_classes_in_another_order_keep_their_colours():
    """mmseg gives them the colours of those that stood in their places."""
    backwards = tuple(reversed(CITYSCAPES))
    config = cityscapes(classes=backwards)
    right = [tuple(CITYSCAPES[name]) for name in backwards]
    assert built_metainfo(config)["palette"] == right
    assert metainfo_of(DATASETS.build(dict(config, lazy_init=True)))["palette"] == right


def test_the_colours_of_the_config_win():
    palette = [[1, 2, 3], [4, 5, 6]]
    for config in (
        cityscapes(classes=("car", "road"), palette=palette),
        named(classes="ab", palette=palette),
    ):
        config["metainfo"]["classes"] = list(config["metainfo"]["classes"])
        assert built_metainfo(config)["palette"] == [(1, 2, 3), (4, 5, 6)]


@pytest.mark.parametrize("count", [1, 2, 19, 256])
def test_classes_without_colours_get_those_that_mmseg_draws(count):
    config = named(classes=[f"class {i}" for i in range(count)])
    meta = built_metainfo(config)
    built = DATASETS.build(dict(config, lazy_init=True)).metainfo
    assert meta["palette"] == [tuple(colour) for colour in built["palette"]]
    assert len(set(meta["palette"]) - {(0, 0, 0)}) == count, "two classes look the same, or like no class"


def test_what_its_labels_need():
    meta = built_metainfo(dict(type="ADE20KDataset", ignore_index=254))
    assert (meta["reduce_zero_label"], meta["ignore_index"], meta["label_map"]) == (True, 254, None)
    meta = built_metainfo(dict(type="CamVidDataset", ignore_index=200))
    assert (meta["reduce_zero_label"], meta["ignore_index"], meta["label_map"]) == (False, 200, {11: 200})


def test_inside_wrappers_and_unchanged():
    """The first data set counts, however deep; with mmengine's Config as well as with a dict."""
    repeated = dict(type="RepeatDataset", times=2, dataset=cityscapes(classes=["car", "road"]))
    wrapped = dict(type="ConcatDataset", datasets=[repeated, cityscapes(classes=["car", "road"])])
    config = Config(dict(dataset=wrapped))
    before = config.pretty_text
    meta = built_metainfo(config.dataset)
    assert meta["classes"] == ("car", "road")
    assert meta["palette"] == [tuple(CITYSCAPES["car"]), tuple(CITYSCAPES["road"])]
    assert config.pretty_text == before
    mix = dict(type="MultiImageMixDataset", dataset=wrapped, pipeline=[])
    balanced = dict(type="ClassBalancedDataset", oversample_thr=0.1, dataset=mix)
    assert built_metainfo(balanced) == meta
    assert built_metainfo(dict(wrapped["datasets"][1], type=CityscapesDataset)) == meta


def test_of_a_built_wrapper():
    from mmengine.dataset import ConcatDataset

    part = DATASETS.build(dict(cityscapes(classes=("car", "road")), lazy_init=True))
    assert metainfo_of(ConcatDataset([part, part], lazy_init=True)) == metainfo_of(part)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (named(), "BaseSegDataset names no classes: set metainfo"),
        (dict(named(), test_mode=True), "BaseSegDataset names no classes: set metainfo"),
        (dict(type="NoSuchDataset"), "no data set of type 'NoSuchDataset'"),
        (cityscapes(classes=("car", "boat")), "CityscapesDataset cannot be built .*'boat'"),
        (dict(cityscapes(), colour="red"), "CityscapesDataset cannot be built .*colour"),
        (named(classes=("a", "b", "c"), palette=[[0, 0, 0]]), "BaseSegDataset cannot be built .*palette"),
        (named(classes="classes.txt"), "'classes.txt', which is no file"),
    ],
)
def test_what_cannot_be_built(config, message):
    with pytest.raises(UserError, match=message):
        built_metainfo(config)


# --- names that are none --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("water", r"'water', which is no file.*classes=\('water',\)"),
        (("road", "car", "road"), "names road more than once"),
        ((), "names no classes"),
        (("road", 3), "one string for each class"),
        ({"road", "car"}, "one string for each class"),
    ],
)
@pytest.mark.parametrize("kind", ["BaseSegDataset", "FolderDataset", "CityscapesDataset", "CamVidDataset"])
def test_names_that_are_none_are_refused_wherever_a_data_set_is_built(kind, classes, message):
    config = dict(type=kind, data_root="nowhere", metainfo=dict(classes=classes))
    for build in (built_metainfo, lambda one: check_dataset(one, 2, split_name="train", progress=False)):
        for wrapped in (config, dict(type="RepeatDataset", times=2, dataset=config)):
            with pytest.raises(UserError, match=f"(?s){kind}.*{message}"):
                build(wrapped)


def test_names_in_a_file_are_read(tmp_path):
    (tmp_path / "names.txt").write_text("car\nroad\n")
    for kind in ("BaseSegDataset", "CityscapesDataset"):
        config = dict(type=kind, data_root="nowhere", metainfo=dict(classes=str(tmp_path / "names.txt")))
        assert built_metainfo(config)["classes"] == ("car", "road")


def test_wrappers_and_what_they_wrap_have_the_right_colours():
    """Checkpoints, visualisers and metrics take ``metainfo`` from the outermost data set."""
    order = tuple(reversed(CITYSCAPES))
    part = dict(cityscapes(classes=order), lazy_init=True)
    repeated = dict(type="RepeatDataset", times=2, dataset=part, lazy_init=True)
    both = DATASETS.build(dict(type="ConcatDataset", datasets=[part, part], lazy_init=True))
    for dataset in (both, DATASETS.build(repeated), DATASETS.build(part)):
        complete_metainfo(dataset)
        colours = [tuple(colour) for colour in dataset.metainfo["palette"]]
        assert colours == [tuple(CITYSCAPES[name]) for name in order]
    assert both.datasets[1].metainfo["palette"] == both.metainfo["palette"]
