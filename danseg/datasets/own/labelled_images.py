"""The images of a set with their labels: from one place, or training and validation from a place each."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from danseg.datasets.own.annotation_forms import Form, recognise
from danseg.datasets.own.pairing import Label, Paired, pair, pictures
from danseg.errors import UserError
from danseg.io.images import IMAGE_SUFFIXES


@dataclasses.dataclass(frozen=True)
class Place:
    """Where images and their labels lie: two folders, or a folder and a file of annotations."""

    images: Path
    labels: Path


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """What was found.

    Attributes:
        images: the folder that all images lie below.
        form: of the labels; ``masks`` is the folder that all masks lie below.
        pairs: name, image and label of each; the name is the image's path below ``images``, without suffix.
        val: places in ``pairs`` of those that are to validate; None if nothing says so.
        notes: what the user should know.
    """

    images: Path
    form: Form
    pairs: list[tuple[str, Path, Label]]
    val: list[int] | None
    notes: list[str]


def find_labelled_images(
    place: Place,
    val_images: Path | None,
    val_labels: Path | None,
    *,
    image_suffix: str,
    mask_suffix: str,
    allow_unpaired: bool,
) -> LabelledImages:
    """Pair the images and labels of a set.

    Args:
        place: of all, or of those for training.
        val_images: folder of the images that validate.
        val_labels: and of their labels; None if both lie in ``place``.
        image_suffix, mask_suffix: what the stems of images and masks end in.
        allow_unpaired: whether to leave out what has no partner.

    Raises:
        UserError: something is missing, has no partner, or is of an unknown form.
    """
    if val_labels is not None and val_images is None:
        raise UserError("--val-masks is for --val-images, which names the images of those masks")
    if val_images is not None and not val_images.is_dir():
        raise UserError(f"--val-images {val_images} is no folder")
    if val_images is not None and val_labels is None and place.images not in val_images.parents:
        raise UserError(
            f"--val-images {val_images} does not lie below the images, {place.images}: name its masks too, "
            "by --val-masks"
        )
    places = [place]
    if val_images is not None and val_labels is not None:
        places.append(Place(val_images, val_labels))
    forms = [recognise(one.labels) for one in places]
    if len({(form.name, form.masks is None) for form in forms}) > 1:
        raise UserError(f"{place.labels} and {val_labels} are of different forms; export both alike")
    suffixes = (_without_format(image_suffix), _without_format(mask_suffix))
    parts = [
        _paired(one, form, suffixes, places[1:] if one is place else [], allow_unpaired)
        for one, form in zip(places, forms, strict=True)
    ]
    root = Path(os.path.commonpath([one.images for one in places]))
    pairs = [
        ((one.images.relative_to(root) / name).as_posix(), image, label)
        for one, part in zip(places, parts, strict=True)
        for name, image, label in part.pairs
    ]
    val = None
    if val_images is not None:
        val = [number for number, (_, image, _) in enumerate(pairs) if val_images in image.parents]
        for said, count in (("below", len(val)), ("outside of", len(pairs) - len(val))):
            if not count:
                raise UserError(
                    f"no image with a label lies {said} --val-images {val_images}; both splits need some"
                )
    masks = [form.masks for form in forms if form.masks is not None]
    form = dataclasses.replace(
        forms[0],
        masks=Path(os.path.commonpath(masks)) if masks else None,
        order=tuple(dict.fromkeys(label for form in forms for label in form.order)),
    )
    notes = [note for form in forms for note in form.notes] + [note for part in parts for note in part.notes]
    return LabelledImages(root, form, pairs, val, notes)


def _paired(
    place: Place, form: Form, suffixes: tuple[str, str], others: list[Place], allow_unpaired: bool
) -> Paired:
    """Pair what lies in a place, without what belongs to others that lie below it."""
    image_suffix, mask_suffix = suffixes
    same = form.masks == place.images
    if same and image_suffix == mask_suffix:
        raise UserError(
            f"images and masks both lie in {place.images}; tell masks by --mask-suffix, such as _mask"
        )
    images, notes = _files(place.images, image_suffix, mask_suffix if same else None)
    images = {name: one for name, one in images.items() if not _below(one, [o.images for o in others])}
    labels: Mapping[str, Label]
    if form.annotated is not None:
        labels = {name.removesuffix(mask_suffix): one for name, one in form.annotated.items()}
    else:
        assert form.masks is not None
        masks, more = _files(form.masks, mask_suffix, image_suffix if same else None)
        labels = {name: one for name, one in masks.items() if not _below(one, [o.labels for o in others])}
        notes += more
    paired = pair(images, labels, allow_unpaired)
    return Paired(paired.pairs, notes + paired.notes)


def _files(folder: Path, ending: str, partners: str | None) -> tuple[dict[str, Path], list[str]]:
    """The files of one side; ``partners`` is how those of the other end, if they lie in the same folder."""
    without = partners if partners and not ending.endswith(partners) else ""
    files, notes = pictures(folder, ending, without)
    return files, [] if partners == "" else notes  # what is left out then is the other side


def _below(path: Path, folders: list[Path]) -> bool:
    return any(folder in path.parents for folder in folders)


def _without_format(suffix: str) -> str:
    """What ends the stem: ``_mask`` also of ``_mask.png``."""
    stem, ending = os.path.splitext(suffix)
    return stem if ending.lower() in IMAGE_SUFFIXES else suffix
