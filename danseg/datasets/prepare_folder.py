"""Prepare a set of one's own: a folder of images and masks, or polygons, in any of the usual forms."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danseg.dataset_file import FILE_NAME, dataset_text
from danseg.datasets.check import DatasetReport, check_dataset
from danseg.datasets.own import class_options, splitting
from danseg.datasets.own.annotation_forms import Form, recognise
from danseg.datasets.own.label_contents import LabelContents, Options, contents_of
from danseg.datasets.own.pairing import Paired, pair, pictures
from danseg.datasets.own.rasterising import Annotated
from danseg.datasets.own.written_files import WrittenFiles, written_files
from danseg.errors import UserError
from danseg.io.image_headers import UnusableImage, claimed_size, mapped
from danseg.io.images import IMAGE_SUFFIXES
from danseg.io.parallel import parallel_map
from danseg.io.words import listed
from danseg.label_maps.id_formats import VOID

_MASKS = "masks"  # folder below --out of the masks that are written
VAL = 0.2
OUTSIDE = "background"


def folder(
    images: str | os.PathLike,
    masks: str | os.PathLike,
    out: str | os.PathLike,
    *,
    classes: str | None = None,
    remap: Sequence[str] = (),
    colours: str | os.PathLike | None = None,
    image_suffix: str = "",
    mask_suffix: str = "",
    val: float = VAL,
    val_images: str | os.PathLike | None = None,
    group: str | None = None,
    outside: str = OUTSIDE,
    allow_unpaired: bool = False,
    progress: bool = True,
) -> list[str | DatasetReport]:
    """Pair images and labels, find out what these hold, and describe the set in ``out``; then check it.

    The images stay where they are, and so do masks from which training reads the ids. Other masks and
    polygons are written to ``out`` as PNGs of class ids. Nothing is left there if something is wrong.

    Args:
        images: Folder of the images.
        masks: Folder of masks or of LabelMe's files, or a file of COCO's form or of CVAT for images.
        out: Folder for ``dataset.yaml``, the lists of the splits, and masks that have to be written.
        classes: Names with commas between, or a file with a name a line.
        remap: ``ID:CLASS`` each, or ``LABEL:CLASS`` for polygons.
        colours: File of the classes' colours, ``name,red,green,blue`` a line.
        image_suffix: What all images' names end in, before the format's suffix.
        mask_suffix: What all masks' names end in.
        val: Share of the images that validate.
        val_images: Or the folder of those that do, below ``images``.
        group: Regular expression; images in whose paths it matches the same text are of one split.
        outside: Class of the pixels outside of all polygons, or ``ignore``.
        allow_unpaired: Whether to leave out what has no partner.
        progress: Whether to draw progress bars on stderr.

    Returns:
        Lines about what was found, a report per split, and the commands that come next.

    Raises:
        UserError: An argument or a file is not right; the message says which and how to mend it.
    """
    images, masks, out = (Path(os.path.abspath(one)) for one in (images, masks, out))
    arguments: dict[str, Any] = dict(
        images=str(images), masks=str(masks), classes=classes, remap=list(remap), val=val
    )
    arguments |= dict(image_suffix=image_suffix, mask_suffix=mask_suffix, group=group, outside=outside)
    arguments |= {
        key: one and os.path.abspath(one) for key, one in (("colours", colours), ("val_images", val_images))
    }
    arguments |= dict(allow_unpaired=allow_unpaired)
    splitting.check_share(val)
    for path in (images, masks):
        if path.is_dir() and (out == path or path in out.parents):
            raise UserError(
                f"--out {out} lies in {path}, where the next run would take what is written for yours; name "
                "a folder outside"
            )
    names = class_options.read_classes(classes) if classes else None
    form = recognise(masks)
    colour_file = colours or form.colours
    known = class_options.read_colours(colour_file, names) if colour_file else None
    options = Options(known.names if known else names, class_options.read_map(remap), known, outside)
    paired = _paired(form, images, image_suffix, mask_suffix, allow_unpaired)
    found = contents_of(form, [label for _, _, label in paired.pairs], options, progress)
    _require_sizes(paired, found.sizes, progress)
    splits, how = _split(paired, images, val_images, val, group, progress)

    with written_files(out, arguments) as files:
        places = _labels(form, paired, found, files, progress)
        for split, chosen in splits.items():
            lines = [f"{os.path.relpath(paired.pairs[one][1], images)}\t{places[one]}\n" for one in chosen]
            files.write_text(f"{split}.txt", "".join(lines))
        files.write_text(FILE_NAME, _description(form, found, images, out, splits))
        reports = _checked(out, len(found.table.names), progress)
        kept = files.finish()
    notes = [*form.notes, *paired.notes, *found.notes, how]
    notes += [f"left as they are, because they were changed: {listed(kept)}"] if kept else []
    return [_summary(form, paired, found), *notes, *reports, _next_commands(out)]


def _paired(form: Form, images: Path, image_suffix: str, mask_suffix: str, allow_unpaired: bool) -> Paired:
    image_suffix, mask_suffix = (_without_format(one) for one in (image_suffix, mask_suffix))
    if form.annotated is not None:
        labels = form.annotated
        if mask_suffix:
            labels = {name.removesuffix(mask_suffix): one for name, one in labels.items()}
        return pair(pictures(images, image_suffix), labels, allow_unpaired)
    assert form.masks is not None
    same = form.masks == images
    if same and image_suffix == mask_suffix:
        raise UserError(f"images and masks both lie in {images}; tell masks by --mask-suffix, such as _mask")
    found = pictures(images, image_suffix, without=mask_suffix if same and mask_suffix else "")
    return pair(
        found,
        pictures(form.masks, mask_suffix, without=image_suffix if same and not mask_suffix else ""),
        allow_unpaired,
    )


def _without_format(suffix: str) -> str:
    """What ends the stem: ``_mask`` also of ``_mask.png``."""
    stem, ending = os.path.splitext(suffix)
    return stem if ending.lower() in IMAGE_SUFFIXES else suffix


def _require_sizes(paired: Paired, sizes: Sequence[tuple[int, int]], progress: bool) -> None:
    """Refuse labels of another size than their image; images that cannot be read are left to the check."""
    images = [image for _, image, _ in paired.pairs]
    claimed = parallel_map(_size_of, images, description="Looking at images", progress=progress)
    wrong = [
        f"{label.source if isinstance(label, Annotated) else label} has {size[0]}x{size[1]}, but {image} "
        f"{there[0]}x{there[1]}"
        for (_, image, label), size, there in zip(paired.pairs, sizes, claimed, strict=True)
        if there not in (None, size)
    ]
    if wrong:
        raise UserError(
            f"{len(wrong)} labels differ from their image in height x width: {listed(wrong, 3)}. Put the "
            "right label beside each image, or export them at the images' size"
        )


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        with mapped(path) as data:
            width, height, _ = claimed_size(data)
    except (OSError, UnusableImage):
        return None
    return (height, width) if height and width else None


def _split(
    paired: Paired,
    images: Path,
    val_images: str | os.PathLike | None,
    share: float,
    group: str | None,
    progress: bool,
) -> tuple[dict[str, list[int]], str]:
    files = [image for _, image, _ in paired.pairs]
    everything = range(len(files))
    if val_images is not None:
        place = Path(os.path.abspath(val_images))
        if images not in place.parents or not place.is_dir():
            raise UserError(f"--val-images {place} is no folder below the images, {images}; name one there")
        val = [one for one in everything if place in files[one].parents]
        train = [one for one in everything if place not in files[one].parents]
        for said, chosen in (("below", val), ("outside of", train)):
            if not chosen:
                raise UserError(
                    f"there is no image with a label {said} --val-images {place}; both splits need some"
                )
        return dict(
            train=train, val=val
        ), f"split: {len(train)} train, {len(val)} val, which lie below {place}"
    digests = splitting.hashes(files, progress)
    groups = splitting.groups_of([file.relative_to(images).as_posix() for file in files], group)
    train, val = splitting.split(digests, groups, share)
    told = f" in {len(set(groups))} groups by --group {group!r}" if group is not None else ""
    same = len(digests) - len(set(digests))
    told += f"; {same} images are copies of others, and in the same split" if same else ""
    return dict(train=train, val=val), f"split: {len(train)} train, {len(val)} val, by content{told}"


def _labels(
    form: Form,
    paired: Paired,
    found: LabelContents,
    files: WrittenFiles,
    progress: bool,
) -> list[str]:
    """Write the masks that training cannot read as they are; the path of each mask below their folder."""
    if found.classes_of is None:
        assert form.masks is not None
        return [os.path.relpath(str(label), form.masks) for _, _, label in paired.pairs]
    classes_of = found.classes_of

    def write(one: tuple) -> str:
        name, _, label = one
        files.write_mask(f"{_MASKS}/{name}.png", classes_of(label), found.table.colours)
        return f"{name}.png"

    return parallel_map(write, paired.pairs, description="Writing masks", progress=progress)


def _description(
    form: Form, found: LabelContents, images: Path, out: Path, splits: Mapping[str, Sequence[int]]
) -> str:
    table = found.table
    mapping: dict[int, int] | None = None
    masks, ignore = _MASKS, [VOID]
    if found.classes_of is None:
        assert form.masks is not None
        masks = _place(form.masks, out)
        mapping = {one: number for one, number in table.table.items() if number != VOID}
        ignore = [one for one, number in table.table.items() if number == VOID]
        if mapping == {number: number for number in range(len(table.names))}:
            mapping = None
    return dataset_text(
        images=_place(images, out),
        masks=masks,
        names=table.names,
        colours=table.colours,
        mapping=mapping,
        ignore=ignore,
        splits={split: f"{split}.txt" for split in splits},
    )


def _place(folder: Path, out: Path) -> str:
    """A folder of the user's as the file names it: relative if it lies below, so that both move together."""
    return os.path.relpath(folder, out) if out in folder.parents else str(folder)


def _checked(out: Path, num_classes: int, progress: bool) -> list[DatasetReport]:
    return [
        check_dataset(
            dict(type="OwnDataset", data_root=str(out), split=split),
            num_classes,
            split_name=split,
            progress=progress,
        )
        for split in ("train", "val")
    ]


def _summary(form: Form, paired: Paired, found: LabelContents) -> str:
    table = found.table
    return (
        f"{len(paired.pairs)} images with {found.what}; {len(table.names)} classes: "
        f"{listed((f'{number} {name}' for number, name in enumerate(table.names)), 20)}"
    )


def _next_commands(out: Path) -> str:
    place = shlex.quote(os.path.relpath(out))
    return f"next:\n  python tools/train.py configs/danet_r18_folder.py --data {place}"
