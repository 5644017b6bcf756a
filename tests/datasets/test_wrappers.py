"""Data sets inside wrappers are found, in configs and in built data sets."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from danseg.apis import model
from danseg.datasets.wrappers import inner_configs, inner_datasets, named_sets
from danseg.engine.config.options import configure_test
from danseg.engine.config.rules.label_rules import class_names
from danseg.engine.config.rules.run import Run
from danseg.engine.failing_samples import name_failing_samples
from danseg.errors import UserError

LOADING = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]


def part(root: str, **more) -> dict:
    return dict(type="CamVidDataset", data_root=root, pipeline=LOADING, **more)


def wrapped() -> dict:
    """Three data sets, two wrappers deep."""
    repeated = dict(
        type="RepeatDataset", times=2, dataset=dict(type="ConcatDataset", datasets=[part("a"), part("b")])
    )
    return dict(type="ConcatDataset", datasets=[repeated, part("c")])


def config(dataset: dict) -> Config:
    head = dict(type="FCNHead", num_classes=11)
    return Config(
        dict(
            model=dict(type="EncoderDecoder", decode_head=head),
            test_dataloader=dict(dataset=dataset),
            test_evaluator=dict(type="ExactIoUMetric"),
            tta_model=dict(type="SegTTAModel"),
            tta_pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="TestTimeAug", transforms=[[LOADING[1]]]),
            ],
        )
    )


def test_configs_inside_wrappers():
    assert [one["data_root"] for one in inner_configs(wrapped())] == ["a", "b", "c"]
    alone = part("a")
    assert next(inner_configs(alone)) is alone
    changed = wrapped()
    for one in inner_configs(changed):
        one["pipeline"] = []
    assert changed["datasets"][0]["dataset"]["datasets"][1]["pipeline"] == []


def test_the_tested_data_set_is_the_first_inside():
    assert model.tested_dataset(config(wrapped())).data_root == "a"


def test_datasets_inside_wrappers():
    from mmengine.dataset import ConcatDataset, RepeatDataset
    from mmseg.registry import DATASETS

    a, b, c = (DATASETS.build(dict(part(root), pipeline=[], lazy_init=True)) for root in "abc")
    whole = ConcatDataset.__new__(ConcatDataset)
    inside = RepeatDataset.__new__(RepeatDataset)
    inside.dataset, whole.datasets = b, [a, inside, c]
    assert list(inner_datasets(whole)) == [a, b, c]
    assert list(inner_datasets(a)) == [a]
    name_failing_samples(whole)
    assert all(type(one.prepare_data).__name__ == "partial" for one in (a, b, c))


def test_format_only_takes_the_labels_out_of_every_data_set():
    changed = config(wrapped())
    configure_test(changed, out="out", format_only=True, work_dir="work")
    inside = list(inner_configs(changed.test_dataloader.dataset))
    assert len(inside) == 3
    for one in inside:
        assert [step["type"] for step in one["pipeline"]] == ["LoadImageFromFile", "PackSegInputs"]
        assert one["test_mode"]
    assert "pipeline" not in changed.test_dataloader.dataset


def test_test_time_augmentation_reaches_every_data_set():
    changed = config(wrapped())
    configure_test(changed, tta=True, out="out", format_only=True, work_dir="work")
    for one in inner_configs(changed.test_dataloader.dataset):
        assert [step["type"] for step in one["pipeline"]] == ["LoadImageFromFile", "TestTimeAug"]
        assert one["pipeline"][1]["transforms"] == []
    assert "pipeline" not in changed.test_dataloader.dataset


def test_every_data_set_has_to_have_the_models_classes():
    init_default_scope("mmseg")
    assert list(class_names(Run(config(wrapped()), "test"))) == []
    wrong = config(wrapped())
    wrong.test_dataloader.dataset.datasets[1].metainfo = dict(classes=("sky", "road"))
    (message,) = class_names(Run(wrong, "test"))
    assert "(CamVidDataset) has 2 classes, but model.decode_head.num_classes=11" in message


def test_a_list_of_data_sets_is_refused_with_the_wrapper_that_takes_it():
    with pytest.raises(UserError, match=r"lists 2 data sets.*type='ConcatDataset', datasets="):
        list(inner_configs([part("a"), part("b")]))


@pytest.mark.parametrize(
    ("places", "names"),
    [
        ([("r/a", "img", ""), ("r/b", "img", "")], ["a", "b"]),
        ([("r", "a/img/val", ""), ("r", "b/c/val", "")], ["a/img", "b/c"]),
        ([("r", "img", "day.txt"), ("r", "img", "night.txt")], ["day.txt", "night.txt"]),
        ([("r", "img", "lists/day.txt"), ("r", "img", "lists/x/day.txt")], ["day.txt", "x/day.txt"]),
        ([("r", "img", ""), ("r", "img", "")], ["1", "2"]),
        ([("r/a", "img", "")], []),
    ],
)
def test_data_sets_are_named_after_what_differs(places, names):
    parts = [
        DATASETS.build(
            dict(
                type="BaseSegDataset",
                data_root=root,
                data_prefix=dict(img_path=folder, seg_map_path="labels"),
                ann_file=frames,
                metainfo=dict(classes=("x", "y")),
                lazy_init=True,
            )
        )
        for root, folder, frames in places
    ]
    whole = SimpleNamespace(datasets=parts)
    assert named_sets(whole) == dict(zip(names, parts, strict=False))
