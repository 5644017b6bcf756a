"""Pair images with their labels by name: same path below both folders, or the same name alone."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from danseg.datasets.own.rasterising import Annotated
from danseg.errors import UserError
from danseg.io.images import IMAGE_SUFFIXES
from danseg.io.source_files import files_below
from danseg.io.words import counted, listed

Label = Path | Annotated  # a mask's file, or an image's regions


@dataclasses.dataclass(frozen=True)
class Paired:
    """What was paired.

    Attributes:
        pairs: name, image and label of each pair, in the order of the names. The name is the image's path
            below its folder, without its suffix.
        notes: what the user should know.
    """

    pairs: list[tuple[str, Path, Label]]
    notes: list[str]


def pictures(folder: Path, ending: str = "", without: str = "") -> tuple[dict[str, Path], list[str]]:
    """The image files below a folder by name: the path below it, without the suffix and ``ending``.

    Args:
        folder: the folder.
        ending: how the stem of a file has to end, such as ``_mask``; others are left out.
        without: how it must not end, which is how the files end that they are to be paired with.

    Returns:
        The files, and a note if others were left out.

    Raises:
        UserError: it is no folder, holds no image, or two files have the same name.
    """
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "missing"
        raise UserError(f"the folder {folder.absolute()} is {kind}; name the folder of the files")
    found = [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    found = [path for path in found if not (without and path.stem.endswith(without))]
    chosen = [path for path in found if path.stem.endswith(ending)]
    if not chosen:
        seen = listed(path.name for path in found or files_below(folder))
        wanted = f"with a name that ends in {ending!r}" if ending else f"({' '.join(IMAGE_SUFFIXES)})"
        holds = f"only {seen}" if seen else "it is empty"
        raise UserError(f"{folder.absolute()} holds no image {wanted}, {holds}; name the right folder")
    others = [path for path in found if not path.stem.endswith(ending)]
    files = counted(len(others), "file")
    notes = [f"left out: {files} without {ending!r} at the end: {listed(others)}"] if others else []
    named = ((str(path.relative_to(folder).with_suffix("")).removesuffix(ending), path) for path in chosen)
    return by_name(named), notes


def by_name(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Files by name.

    Raises:
        UserError: two have the same name, or a name is no text that a list of files can hold.
    """
    found: dict[str, Path] = {}
    for name, path in files:
        text = str(path)
        if not name.isprintable() or not text.isprintable():  # also of bytes that are no UTF-8
            raise UserError(
                f"the name {text!r} has a tab, a line break or bytes that are not UTF-8; rename it"
            )
        if name in found:
            raise UserError(
                f"{found[name]} and {path} have the same name but for its suffix, so that it is not clear "
                "which is meant; move one away"
            )
        found[name] = path
    return found


def pair(images: Mapping[str, Path], labels: Mapping[str, Label], allow_unpaired: bool) -> Paired:
    """Pair images and labels of one name; what is left, by the last part of the name where that is unique.

    Raises:
        UserError: nothing can be paired, or something is left, unless ``allow_unpaired``.
    """
    partner = {name: name for name in images if name in labels}
    rest_images = [name for name in images if name not in partner]
    rest_labels = [name for name in labels if name not in images]
    images_called, labels_called = _by_last_part(rest_images), _by_last_part(rest_labels)
    elsewhere = {
        one[0]: labels_called[last][0]
        for last, one in images_called.items()
        if len(one) == len(labels_called.get(last, ())) == 1
    }
    partner |= elsewhere
    lonely = [str(images[name]) for name in rest_images if name not in elsewhere]
    unused = [name for name in rest_labels if name not in elsewhere.values()]
    if lonely or unused:
        said = []
        if lonely:
            said.append(f"{counted(len(lonely), 'image has', 'images have')} no label: {listed(lonely)}")
        if unused:
            sources = listed(_source(labels[name]) for name in unused)
            said.append(f"{counted(len(unused), 'label has', 'labels have')} no image: {sources}")
        if not allow_unpaired or not partner:
            hint = _suffix_hint(rest_images, unused) or "Add what is missing"
            leave = ", or leave them out with --allow-unpaired" if partner else ""
            raise UserError(f"{'; '.join(said)}. {hint}{leave}")
        notes = [f"left out: {one}" for one in said]
    else:
        notes = []
    if elsewhere:
        one, other = next(iter(elsewhere.items()))
        pairs_told = counted(len(elsewhere), "pair")
        notes.append(f"{pairs_told} by name alone, in other subfolders, such as {one} and {other}")
    pairs = [(name, images[name], labels[partner[name]]) for name in sorted(partner)]
    return Paired(pairs, notes)


def _source(label: Label) -> str:
    return label.source if isinstance(label, Annotated) else str(label)


def _by_last_part(names: Sequence[str]) -> dict[str, list[str]]:
    called = defaultdict(list)
    for name in names:
        called[name.rpartition("/")[2]].append(name)
    return called


def _suffix_hint(images: Sequence[str], labels: Sequence[str]) -> str:
    """The ending that would pair the first label with an image, as an option to give."""
    lasts = {name.rpartition("/")[2] for name in images}
    for name in labels[:1]:
        last = name.rpartition("/")[2]
        longer = [one for one in lasts if last.startswith(one) and last != one]
        if longer:
            return (
                f"If all labels end like {last}, give --mask-suffix {last.removeprefix(max(longer, key=len))}"
            )
        shorter = [one for one in lasts if one.startswith(last) and last and last != one]
        if shorter:
            ending = min(shorter, key=len).removeprefix(last)
            return f"If all images end like {min(shorter, key=len)}, give --image-suffix {ending}"
    return ""
