"""Tell by their content of which form a set's labels are, and read those that are not masks."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from danseg.datasets.own.coco import is_coco, read_coco
from danseg.datasets.own.cvat import read_cvat
from danseg.datasets.own.labelme import NO_AREA, is_labelme, read_labelme
from danseg.datasets.own.pairing import by_name
from danseg.datasets.own.rasterising import Annotated, require_pycocotools
from danseg.errors import UserError, reason_of
from danseg.io.source_files import files_below, read_file
from danseg.io.words import counted, listed

_LABELMAP = "labelmap.txt"
_VOC_MASKS = "SegmentationClass"


@dataclasses.dataclass(frozen=True)
class Form:
    """What was found.

    Attributes:
        name: of the form, for messages.
        masks: the folder of masks; None for polygons.
        colours: the file of the masks' colours that comes with them.
        annotated: the images with their regions, by name; None for masks.
        order: labels in the order in which the annotation lists them.
        notes: what the user should know.
    """

    name: str
    masks: Path | None = None
    colours: Path | None = None
    annotated: dict[str, Annotated] | None = None
    order: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def recognise(labels: Path) -> Form:
    """The form of the labels in a folder or a file.

    * a JSON file with images, annotations and categories: COCO;
    * a folder of JSON files with shapes: LabelMe;
    * an XML file of annotations: CVAT for images;
    * a folder with SegmentationClass and labelmap.txt, or that SegmentationClass: an export in VOC's form;
    * another folder: masks.

    Raises:
        UserError: there is nothing, or a file of none of these forms.
    """
    if labels.is_file():
        return _from_file(labels)
    if not labels.is_dir():
        raise UserError(
            f"there is no {labels.absolute()}: name the folder of masks, or the file of annotations"
        )
    for root in (labels, labels.parent):
        masks = labels if root != labels else labels / _VOC_MASKS
        if masks.name == _VOC_MASKS and masks.is_dir() and (root / _LABELMAP).is_file():
            return Form(" (an export in VOC's form)", masks=masks, colours=root / _LABELMAP)
    annotations = [path for path in files_below(labels) if path.suffix.lower() in (".json", ".xml")]
    for path in annotations:
        if path.suffix.lower() == ".xml":
            if b"<annotations" in _bytes(path)[:4096]:
                return _alone(path, annotations)
        elif is_labelme(content := _json(path)):
            return _labelme(labels, annotations)
        elif is_coco(content):
            return _alone(path, annotations)
    return Form("", masks=labels)


def _alone(path: Path, annotations: list[Path]) -> Form:
    others = [one for one in annotations if one != path]
    if others:
        raise UserError(
            f"{path} holds annotations, and there are more: {listed(others)}; name the one file to read"
        )
    return _from_file(path)


def _from_file(path: Path) -> Form:
    require_pycocotools(str(path))
    if path.suffix.lower() == ".xml":
        images, order, left_out = read_cvat(path, _bytes(path))
        return _polygons("CVAT for images", path, images, order, left_out, "shape", "without an area")
    content: Any = _json(path) if path.suffix.lower() == ".json" else None
    if is_coco(content):
        images, order, left_out = read_coco(path, content)
        without = "without a region, such as boxes"
        return _polygons("COCO", path, images, order, left_out, "annotation", without)
    if is_labelme(content):
        raise UserError(f"{path} is of LabelMe, which has a file an image; name their folder")
    raise UserError(
        f"{path} is of no known form: a folder of masks or of LabelMe's JSON files, a JSON file of COCO's "
        "form and an XML file of CVAT for images are read"
    )


def _labelme(folder: Path, annotations: list[Path]) -> Form:
    require_pycocotools(str(folder))
    images, left_out = [], 0
    files = [path for path in annotations if path.suffix.lower() == ".json"]
    for name, path in by_name((str(one.relative_to(folder).with_suffix("")), one) for one in files).items():
        content = _json(path)
        if not is_labelme(content):
            raise UserError(f"{path} has no shapes, as the files of LabelMe beside it have; move it away")
        annotated, without = read_labelme(name, path, content)
        images.append(annotated)
        left_out += without
    return _polygons(
        "LabelMe", folder, images, [], left_out, "shape", f"without an area ({', '.join(NO_AREA)})"
    )


def _polygons(
    name: str, path: Path, images: list[Annotated], order: list[str], left_out: int, what: str, without: str
) -> Form:
    if not any(image.regions for image in images):
        raise UserError(f"{path} ({name}) holds no region with an area; annotate polygons or masks")
    by_name((image.name, Path(image.source)) for image in images)
    notes = (f"left out: {counted(left_out, what)} {without}",) if left_out else ()
    annotated = {image.name: image for image in images}
    return Form(name, annotated=annotated, order=tuple(order), notes=notes)


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}; export it again, or move it away") from error
