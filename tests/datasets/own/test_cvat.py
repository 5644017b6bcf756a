"""CVAT's shapes become their pixels in the order of z_order; XML that could do harm is refused."""

from pathlib import Path

import numpy as np
import pytest

from danseg.datasets.own.cvat import read_cvat
from danseg.datasets.own.rasterising import rasterised
from danseg.errors import UserError

PATH = Path("x.xml")
LABELS = (
    "<meta><task><labels><label><name>b</name></label><label><name>a</name></label></labels></task></meta>"
)


def xml(*shapes, image='name="sub/a.jpg" width="40" height="30"', more=""):
    inner = (
        f"<annotations><version>1.1</version>{LABELS}<image id='0' {image}>{''.join(shapes)}</image>{more}"
    )
    return f'<?xml version="1.0" encoding="utf-8"?>\n{inner}</annotations>'.encode()


def box(x0, y0, x1, y1, label="a", more=""):
    return f'<box label="{label}" xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}" {more}/>'


def drawn(*shapes):
    (image,), _, left_out = read_cvat(PATH, xml(*shapes))
    return rasterised(image, {"a": 1, "b": 2}, 0), left_out


def expected(*boxes):
    classes = np.zeros((30, 40), np.uint8)
    for x0, y0, x1, y1, value in boxes:
        classes[y0:y1, x0:x1] = value
    return classes


def test_names_and_labels():
    (image,), order, _ = read_cvat(PATH, xml())
    assert (image.name, image.size, order) == ("sub/a", (30, 40), ["b", "a"])


def test_z_order_and_then_the_order_of_the_file():
    shapes = (box(0, 0, 10, 10), box(5, 5, 15, 15, "b"))
    assert (drawn(*shapes)[0] == expected((0, 0, 10, 10, 1), (5, 5, 15, 15, 2))).all()
    shapes = (box(0, 0, 10, 10, "a", 'z_order="1"'), box(5, 5, 15, 15, "b", 'z_order="-3"'))
    assert (drawn(*shapes)[0] == expected((5, 5, 15, 15, 2), (0, 0, 10, 10, 1))).all()


def test_a_polygon():
    found, _ = drawn('<polygon label="a" points="2.00,3.00;20.0,3;20,13;2,13"/>')
    assert (found == expected((2, 3, 20, 13, 1))).all()


def test_a_turned_box():
    found, _ = drawn(box(10, 13, 30, 17, "a", 'rotation="90"'))
    assert (found == expected((18, 5, 22, 25, 1))).all()


def test_an_ellipse():
    found, _ = drawn('<ellipse label="a" cx="20" cy="15" rx="12" ry="6"/>')
    y, x = np.mgrid[:30, :40] + 0.5
    assert ((found == 1) != (((x - 20) / 12) ** 2 + ((y - 15) / 6) ** 2 < 1)).sum() < 8


def test_a_mask_row_by_row():
    found, _ = drawn('<mask label="a" rle="1, 2, 2, 4" left="7" top="9" width="3" height="3"/>')
    mask = expected()
    mask[9:12, 7:10] = [[0, 1, 1], [0, 0, 1], [1, 1, 1]]
    assert (found == mask).all()


def test_shapes_without_an_area_are_counted():
    found, left_out = drawn(
        '<points label="a" points="1,2"/>',
        '<polyline label="a" points="1,2;3,4;5,9"/>',
        '<tag label="a"/>',
        '<polygon label="a" points="1,2;3,4"/>',
        box(2, 3, 20, 13),
    )
    assert left_out == 4 and (found == expected((2, 3, 20, 13, 1))).all()


BOMB = b'<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;&x;">]>'
READ = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("doctype", [BOMB, READ])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(doctype, encoding):
    data = xml().replace(b"<annotations>", doctype + b"<annotations>")
    with pytest.raises(UserError, match="document type|is not UTF-8|is no XML"):
        read_cvat(PATH, data.decode().encode(encoding))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (xml()[:-5], "x.xml is no XML: .*export it again"),
        (b"<a/>", "not CVAT's form for images: export the task as 'CVAT for images 1.1'"),
        (xml(more="<track id='0'/>"), "not CVAT's form for images"),
        (xml(image='width="4" height="4"'), "image 1: it has no name"),
        (xml(image='name="a" width="x" height="4"'), "image 1: width: 'x' is no number"),
        (xml('<polygon points="1,2;3,4;5,6"/>'), "it has no label"),
        (xml('<blob label="a"/>'), "blob a: read are polygon, box, ellipse, mask"),
        (xml('<polygon label="a" points="1,2;3;5,6"/>'), "no corners"),
        (xml('<polygon label="a"/>'), "'' is no number"),
        (xml('<box label="a" xtl="1"/>'), "ytl: None is no number"),
        (xml('<mask label="a" rle="1,x" left="0" top="0" width="3" height="3"/>'), "no list of runs"),
        (xml('<mask label="a" rle="1,2" left="0" top="0" width="3" height="3"/>'), "do not fill its box"),
        (xml('<mask label="a" rle="-1,10" left="0" top="0" width="3" height="3"/>'), "do not fill its box"),
        (xml('<mask label="a" rle="0,9" left="38" top="0" width="3" height="3"/>'), "not lie in the image"),
        (xml(box(0, 0, 3, 3, "a", 'z_order="x"')), "'x' is no number"),
    ],
)
def test_one_message_each(data, said):
    with pytest.raises(UserError, match=said):
        read_cvat(PATH, data)
