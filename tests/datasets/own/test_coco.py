"""COCO's polygons, holes and run lengths become their pixels, smaller regions above larger ones."""

import copy
from pathlib import Path

import numpy as np
import pytest

from danseg.datasets.own.coco import is_coco, read_coco
from danseg.datasets.own.rasterising import rasterised
from danseg.errors import UserError

PATH = Path("x.json")
GOOD = dict(
    images=[dict(id=7, file_name="sub/a.jpg", height=30, width=40)],
    categories=[dict(id=9, name="b"), dict(id=2, name="a")],
    annotations=[],
)


def box(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def one(segmentation, category=2):
    return dict(image_id=7, category_id=category, segmentation=segmentation)


def content(*annotations, **changes):
    return copy.deepcopy(GOOD) | dict(annotations=list(annotations)) | changes


def drawn(*annotations):
    images, _, left_out = read_coco(PATH, content(*annotations))
    return rasterised(images[0], {"a": 1, "b": 2}, 0), left_out


def expected(*boxes):
    classes = np.zeros((30, 40), np.uint8)
    for x0, y0, x1, y1, value in boxes:
        classes[y0:y1, x0:x1] = value
    return classes


def test_recognised_and_named():
    assert is_coco(content()) and not is_coco(dict(images=[])) and not is_coco([])
    (image,), order, left_out = read_coco(PATH, content())
    assert (image.name, image.size, image.regions) == ("sub/a", (30, 40), ())
    assert (order, left_out) == (["a", "b"], 0)  # by id


@pytest.mark.parametrize("turned", [False, True])
def test_smaller_regions_lie_above_in_any_order(turned):
    annotations = [one([box(2, 2, 30, 20)]), one([box(10, 5, 20, 15)], 9)]
    found, _ = drawn(*annotations[:: -1 if turned else 1])
    assert (found == expected((2, 2, 30, 20, 1), (10, 5, 20, 15, 2))).all()


def test_parts_are_united():
    found, _ = drawn(one([box(2, 2, 10, 10), box(20, 2, 30, 10)]))
    assert (found == expected((2, 2, 10, 10, 1), (20, 2, 30, 10, 1))).all()


def run_lengths(mask):
    """Of the columns, beginning with how many are outside."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_keep_holes(compressed):
    from pycocotools import mask as coco_mask

    ring = expected((5, 5, 25, 25, 1)).astype(bool)
    ring[10:20, 10:20] = False
    rle = dict(size=[30, 40], counts=run_lengths(ring))
    if compressed:
        rle = coco_mask.frPyObjects(rle, 30, 40)
        rle["counts"] = rle["counts"].decode()
    assert ((drawn(one(rle))[0] == 1) == ring).all()


def test_boxes_alone_are_counted():
    found, left_out = drawn(one([]), one(None), one([[1, 1, 5, 5]]), one([box(2, 2, 10, 10)]))
    assert left_out == 3 and (found == expected((2, 2, 10, 10, 1))).all()


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (one([[1, 2, 3]]), r"x.json, annotation 1 \(a\): .* no corners"),
        (one([1, 2, 3, 4, 5, 6]), "1 are no corners"),
        (one([[1, 2, "x", 4, 5, 6]]), "'x' is no number"),
        (one([[1, 2, 3, 4, 1e9, 6]]), "far outside"),
        (one("text"), "segmentation is 'text'"),
        (
            one(dict(size=[40, 30], counts=[1200])),
            r"run lengths for \[40, 30\], but its image has \[30, 40\]",
        ),
        (one(dict(size=[30, 40], counts=[1, 2])), "do not add up"),
        (one(dict(size=[30, 40], counts=[-5, 1205])), "do not add up"),
        (one(dict(size=[30, 40], counts=7)), "counts is 7"),
        (one(dict(size=[30, 40], counts="zz!~")), "counts is 'zz!~'"),
        (one(dict(size=[30, 40], counts="zz")), "counts is 'zz'"),
        (one(dict(size=[30, 40], counts="52")), "do not add up"),
        (one([box(2, 2, 10, 10)], 3), "category_id 3 is none of the categories, 2 a, 9 b"),
        (dict(category_id=2), "image_id is None; it should be a number or text"),
        (dict(image_id=7, segments_info=[]), "annotation 1: COCO's panoptic form is not read"),
        (3, "image_id is None"),
    ],
)
def test_one_message_each(annotation, said):
    with pytest.raises(UserError, match=said):
        drawn(annotation)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(images=[]), "annotations name the images 7, which are not"),
        (dict(images=[GOOD["images"][0]] * 2), "image 2: the id 7 is another image's too"),
        (dict(images=[dict(id=7, file_name="a", height=0, width=4)]), "image 1: height: 0 is no height"),
        (dict(images=[dict(id=7, height=3, width=4)]), "file_name is None"),
        (dict(categories=[dict(id=2, name="a"), dict(id=2, name="b")]), "category 2: its id 2 or name"),
        (dict(categories=[dict(id=2)]), "category 1: name is None"),
    ],
)
def test_lists_that_are_wrong(changes, said):
    with pytest.raises(UserError, match=said):
        read_coco(PATH, content(one([box(2, 2, 10, 10)]), **changes))
