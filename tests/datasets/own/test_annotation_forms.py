"""The form of labels is told by what the files hold."""

import json

import pytest

import own_sets
from danseg.datasets.own.annotation_forms import recognise
from danseg.errors import UserError


def test_masks(tmp_path):
    own_sets.ids_set(tmp_path, 1)
    assert recognise(tmp_path / "masks").masks == tmp_path / "masks"
    # Other files of the same suffixes beside them do not matter.
    (tmp_path / "masks/meta.json").write_text("{}")
    (tmp_path / "masks/meta.xml").write_text("<a/>")
    assert recognise(tmp_path / "masks").annotated is None


@pytest.mark.parametrize("place", [".", "SegmentationClass"])
def test_an_export_in_vocs_form(tmp_path, place):
    own_sets.voc_set(tmp_path, 1)
    found = recognise(tmp_path / place)
    assert (found.masks, found.colours) == (tmp_path / "SegmentationClass", tmp_path / "labelmap.txt")


@pytest.mark.parametrize(
    ("kind", "places", "name"),
    [
        ("labelme", ["labels"], "LabelMe"),
        ("coco", ["instances.json", "."], "COCO"),
        ("cvat", ["annotations.xml", "."], "CVAT for images"),
    ],
)
def test_polygons(tmp_path, kind, places, name):
    getattr(own_sets, f"{kind}_set")(tmp_path, 3)
    for place in places:
        found = recognise(tmp_path / place)
        assert (found.name, found.masks) == (name, None)
        assert list(found.annotated) == ["000", "001", "002"]


def test_labelme_beside_its_images(tmp_path):
    own_sets.labelme_set(tmp_path, 2)
    for path in (tmp_path / "labels").iterdir():
        path.rename(tmp_path / "images" / path.name)
    assert recognise(tmp_path / "images").name == "LabelMe"


def test_what_was_left_out_is_said(tmp_path):
    own_sets.labelme_set(tmp_path, 2)
    content = json.loads((tmp_path / "labels/000.json").read_text())
    content["shapes"].append(dict(label="disc", shape_type="point", points=[[1, 1]]))
    (tmp_path / "labels/000.json").write_text(json.dumps(content))
    assert recognise(tmp_path / "labels").notes == (
        "left out: 1 shape without an area (line, linestrip, point, points)",
    )


def test_one_message_each(tmp_path):
    own_sets.labelme_set(tmp_path, 2)
    own_sets.coco_set(tmp_path, 2)
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "x.txt").write_text("x")
    for place, said in (
        ("nowhere", "there is no .*nowhere: name the folder of masks"),
        ("labels/000.json", "is of LabelMe, which has a file an image; name their folder"),
        ("other.json", "is of no known form"),
        ("x.txt", "is of no known form"),
        ("bad.json", "bad.json is no JSON: "),
        ("deep.json", "deep.json is no JSON: "),
    ):
        with pytest.raises(UserError, match=said):
            recognise(tmp_path / place)
    (tmp_path / "labels/zzz.json").write_text("{}")
    with pytest.raises(UserError, match="zzz.json has no shapes, as the files of LabelMe beside it"):
        recognise(tmp_path / "labels")


def test_two_files_of_annotations(tmp_path):
    own_sets.coco_set(tmp_path, 2)
    (tmp_path / "second.json").write_text((tmp_path / "instances.json").read_text())
    with pytest.raises(
        UserError, match="instances.json holds annotations, and there are more: .*second.json"
    ):
        recognise(tmp_path)


def test_nothing_with_an_area(tmp_path):
    own_sets.coco_set(tmp_path, 2)
    content = json.loads((tmp_path / "instances.json").read_text()) | dict(annotations=[])
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="holds no region with an area"):
        recognise(tmp_path / "instances.json")
