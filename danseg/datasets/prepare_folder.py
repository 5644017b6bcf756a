"""Prepare a set of one's own: a folder of images and masks, or polygons, in any of the usual forms."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from danseg.dataset_file import FILE_NAME, dataset_text
from danseg.datasets.check import DatasetReport, check_dataset
from danseg.datasets.own import class_options, splitting
from danseg.datasets.own.label_contents import LabelContents, Options, contents_of
from danseg.datasets.own.labelled_images import LabelledImages, Place, find_labelled_images
from danseg.datasets.own.pairing import Label
from danseg.datasets.own.rasterising import Annotated
from danseg.datasets.own.written_files import WrittenFiles, written_files
from danseg.errors import UserError
from danseg.io.image_headers import FIXES, stored_size
from danseg.io.parallel import parallel_map
from danseg.io.words import counted, listed
from danseg.label_maps.id_formats import VOID
from danseg.shipped import as_started

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
    test: float | None = None,
    val_images: str | os.PathLike | None = None,
    val_masks: str | os.PathLike | None = None,
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
        test: Share of the images to test on, in a third split; None for none.
        val_images: Or the folder of those that do.
        val_masks: And of their masks; not needed if ``val_images`` lies below ``images``.
        group: Regular expression; images in whose paths it matches the same text are of one split.
        outside: Class of the pixels outside of all polygons, or ``ignore``.
        allow_unpaired: Whether to leave out what has no partner.
        progress: Whether to draw progress bars on stderr.

    Returns:
        Lines about what was found, a report per split, and the commands that come next.

    Raises:
        UserError: An argument or a file is not right; the message says which and how to mend it.
    """
    arguments = _arguments(locals())
    splitting.check_shares(val if val_images is None else None, test)
    place = Place(_absolute(images), _absolute(masks))
    out = _absolute(out)
    _require_outside(out, place, val_images, val_masks)
    names = class_options.read_classes(classes) if classes else None
    classes_of_labels = class_options.read_map(remap)
    found = find_labelled_images(
        place,
        _absolute(val_images),
        _absolute(val_masks),
        image_suffix=image_suffix,
        mask_suffix=mask_suffix,
        allow_unpaired=allow_unpaired,
    )
    colour_file = colours or found.form.colours
    known = class_options.read_colours(colour_file, names) if colour_file else None
    options = Options(known.names if known else names, classes_of_labels, known, outside)
    contents = contents_of(found.form, [label for _, _, label in found.pairs], options, progress)
    _require_sizes(found, contents.sizes, progress)
    splits, how = _split(found, contents, dict(val=val, test=test), group, progress)

    with written_files(out, arguments) as files:
        places = _write_masks(found, contents, files, progress)
        for split, chosen in splits.items():
            images_of = [os.path.relpath(found.pairs[one][1], found.images) for one in chosen]
            lines = [f"{image}\t{places[one]}\n" for image, one in zip(images_of, chosen, strict=True)]
            files.add_text(f"{split}.txt", "".join(lines))
        files.add_text(FILE_NAME, _description(found, contents, out, splits))
        reports = [
            check_dataset(
                dict(type="OwnDataset", data_root=str(out), split=split),
                len(contents.table.names),
                split_name=split,
                progress=progress,
            )
            for split in splits
        ]
        kept = files.finish()
    notes = [*found.notes, *contents.notes, how, *_missing_classes(contents, splits)]
    notes += [f"left as they are, because they were changed: {listed(kept)}"] if kept else []
    return [_summary(found, contents), *notes, *reports, _next_commands(out)]


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a set is prepared from, to be recorded: all arguments but those that change no file."""
    paths = ("images", "masks", "colours", "val_images", "val_masks")
    kept = {key: one for key, one in given.items() if key not in ("out", "progress")}
    if kept["test"] is None:  # sets were prepared when there was no such argument
        del kept["test"]
    return {
        key: str(_absolute(one)) if key in paths and one is not None else one for key, one in kept.items()
    }


@overload
def _absolute(path: str | os.PathLike) -> Path: ...
@overload
def _absolute(path: str | os.PathLike | None) -> Path | None: ...
def _absolute(path: str | os.PathLike | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path))


def _require_outside(out: Path, place: Place, *more: str | os.PathLike | None) -> None:
    for path in (place.images, place.labels, *(_absolute(one) for one in more)):
        if path is not None and path.is_dir() and (out == path or path in out.parents):
            raise UserError(
                f"--out {out} lies in {path}, where the next run would take what is written for yours; name "
                "a folder outside"
            )


def _require_sizes(found: LabelledImages, sizes: Sequence[tuple[int, int]], progress: bool) -> None:
    """Refuse labels of another size than their image, before anything of that size is drawn."""
    images = [image for _, image, _ in found.pairs]
    claimed = parallel_map(stored_size, images, description="Looking at images", progress=progress)
    unknown = [image for image, there in zip(images, claimed, strict=True) if there is None]
    if unknown:
        raise UserError(
            f"{counted(len(unknown), 'image')} cannot be read: {listed(unknown, 3)}; copy or download again"
        )
    wrong = [
        f"{label.source if isinstance(label, Annotated) else label} has {size[0]}x{size[1]}, but {image} "
        f"{there[0]}x{there[1]}"
        for (_, image, label), size, there in zip(found.pairs, sizes, claimed, strict=True)
        if there is not None and there != size
    ]
    if wrong:
        turned = any(there == size[::-1] for there, size in zip(claimed, sizes, strict=True) if there != size)
        hint = f"; or the image is turned by its EXIF orientation: {FIXES['turned']}" if turned else ""
        raise UserError(
            f"{counted(len(wrong), 'label differs', 'labels differ')} from the image in height x width: "
            f"{listed(wrong, 3)}. Put the "
            f"right label beside each image, or export them at the images' size{hint}"
        )


def _split(
    found: LabelledImages,
    contents: LabelContents,
    shares: Mapping[str, float | None],
    group: str | None,
    progress: bool,
) -> tuple[dict[str, list[int]], str]:
    """The places of each split's pairs, and how they were chosen."""
    told = set(found.val or ())
    asked = {name: share for name, share in shares.items() if share and not (found.val and name == "val")}
    places = [place for place in range(len(found.pairs)) if place not in told]
    splits, how = {"train": places}, "as told"
    if asked:
        files = [found.pairs[place][1] for place in places]
        digests = splitting.hashes(files, progress)
        groups = splitting.groups_of([file.relative_to(found.images).as_posix() for file in files], group)
        chosen = splitting.split(digests, groups, asked, [contents.shown[place] for place in places])
        splits = {name: [places[one] for one in ones] for name, ones in chosen.items()}
        how = "by content" + ("" if not told else ", val as told")
        how += f" in {len(set(groups))} groups by --group {group!r}" if group is not None else ""
        same = len(digests) - len(set(digests))
        copies = counted(same, "image is a copy of another", "images are copies of others")
        how += f"; {copies}, and in the same split" if same else ""
    if found.val is not None:
        splits = {"train": splits["train"], "val": found.val, **splits}
    return splits, f"split: {', '.join(f'{len(ones)} {name}' for name, ones in splits.items())}, {how}"


def _missing_classes(contents: LabelContents, splits: Mapping[str, Sequence[int]]) -> list[str]:
    """What to say of classes that a split does not show, though another one does."""
    shown = {
        split: {one for place in places for one in contents.shown[place]} for split, places in splits.items()
    }
    every = set().union(*shown.values())
    missing = {
        split: [contents.table.names[one] for one in sorted(every - there)] for split, there in shown.items()
    }
    return [
        f"{split} does not show {listed(names)}: too few images or groups do"
        for split, names in missing.items()
        if names
    ]


def _write_masks(
    found: LabelledImages, contents: LabelContents, files: WrittenFiles, progress: bool
) -> list[str]:
    """Write the masks that training cannot read as they are; the path of each mask below their folder."""
    classes_of = contents.classes_of
    if classes_of is None:
        return [os.path.relpath(str(label), found.form.masks) for _, _, label in found.pairs]

    def write(one: tuple[str, Path, Label]) -> str:
        name, _, label = one
        files.add_mask(f"{_MASKS}/{name}.png", classes_of(label), contents.table.colours)
        return f"{name}.png"

    return parallel_map(write, found.pairs, description="Writing masks", progress=progress)


def _description(
    found: LabelledImages, contents: LabelContents, out: Path, splits: Mapping[str, Sequence[int]]
) -> str:
    table = contents.table
    mapping: dict[int, int] | None = None
    masks, ignore = _MASKS, [VOID]
    if contents.classes_of is None and found.form.masks is not None:
        masks = _place(found.form.masks, out)
        mapping = {one: number for one, number in table.table.items() if number != VOID}
        ignore = [one for one, number in table.table.items() if number == VOID]
        if mapping == {number: number for number in range(len(table.names))}:
            mapping = None
    return dataset_text(
        images=_place(found.images, out),
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


def _summary(found: LabelledImages, contents: LabelContents) -> str:
    names = [f"{number} {name}" for number, name in enumerate(contents.table.names)]
    images, classes = counted(len(found.pairs), "image"), counted(len(names), "class", "classes")
    return f"{images} with {contents.what}; {classes}: {listed(names, 20)}"


def _next_commands(out: Path) -> str:
    place = shlex.quote(os.path.relpath(out))
    return as_started(
        f"next:\n  python tools/train.py configs/danet_r18_folder.py --data {place}\n"
        f"  python tools/predict.py configs/danet_r18_folder.py CHECKPOINT IMAGE --data {place}"
    )
