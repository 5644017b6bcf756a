"""Export a network: write it to a temporary place, verify it there, and only then give it its name."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmseg.models import BaseSegmentor
from torch import Tensor

from danseg.engine.checkpoints.downloads import local_file
from danseg.engine.config.stored_config import config_to_text
from danseg.errors import UserError, first_line_of, reason_of
from danseg.export.deployed_network import DeployedNetwork
from danseg.export.description import Checkpoint, Description, Input, Size
from danseg.export.formats import FORMATS, Format, Task
from danseg.export.normalisation import Normalisation, normalisation
from danseg.export.sessions import open_session
from danseg.export.verification import SMALLEST, Reference, Verification, fitted, given, sizes, verify
from danseg.io.files import files_together, make_folder
from danseg.io.source_files import read_file


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        description: what the file says of itself.
        smallest: side of the smallest picture that a file for any size is known to take; else None.
        verification: how far it is from the network.
    """

    description: Description
    smallest: int | None
    verification: Verification


def check_target(out: str | os.PathLike, kind: Format, precision: str, *, overwrite: bool = False) -> None:
    """Refuse what can be refused before anything is loaded.

    Raises:
        UserError: the format is not written in this precision or needs a package that is not there, the file
            has another ending, exists, or its folder cannot be made or written to.
    """
    if precision not in kind.precisions:
        others = [name for name, one in FORMATS.items() if precision in one.precisions]
        raise UserError(
            f"--precision {precision} is none that {kind.title} is written in; choose "
            f"{', '.join(kind.precisions)}, or --format {' or '.join(others)}"
        )
    out = Path(out)
    if out.suffix != kind.suffix:
        raise UserError(f"--out {out}: a file of {kind.title} ends in {kind.suffix}; name it so")
    kind.require_packages()
    make_folder(out.parent, "the folder for the file", "choose another --out")
    there = [file for file in kind.files(out) if file.exists()]
    if there and not overwrite:
        raise UserError(f"{there[0]} exists; name another --out, or replace it by --overwrite")


def export_network(
    model: BaseSegmentor,
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    *,
    kind: Format,
    size: tuple[int, int],
    dynamic: bool = False,
    precision: str = "float32",
    narrow: BaseSegmentor | None = None,
    with_preprocessing: bool = False,
    labels: bool = False,
    overwrite: bool = False,
    photos: Sequence[np.ndarray] = (),
) -> Exported:
    """Write a network in a format, once it is known to give what the model gives.

    Args:
        model: from :func:`danseg.apis.load_model` and :func:`danseg.apis.prepare_for_inference`, in float32,
            on the CPU.
        checkpoint: the file of its weights.
        out: the file to write.
        kind: the format, of :data:`danseg.export.formats.FORMATS`.
        size: height and width of the pictures that it takes; with ``dynamic``, of those on which it is
            verified first.
        dynamic: it takes any number of pictures of any size.
        precision: "float32", "float16" or "int8".
        narrow: the model in 16 bits, for a format that does not compress; needed for "float16" alone.
        with_preprocessing: it takes pictures (B, H, W, C) uint8, red first.
        labels: it gives labels at the pictures' size.
        overwrite: replace a file.
        photos: for "int8": pictures (H, W, C) uint8 of the training set, red first, of any size.

    Raises:
        UserError: as :func:`check_target`; the network cannot be exported so, or the file is not right.
    """
    check_target(out, kind, precision, overwrite=overwrite)
    path = Path(out)
    does = normalisation(model)
    _check(model, does, with_preprocessing, labels)
    if precision == "int8" and does.bands != 3:
        raise UserError(
            f"--precision int8 is for pictures of 3 channels, and the network takes {does.bands}; export it "
            "in float32 or float16"
        )
    network = DeployedNetwork(
        model if narrow is None else narrow, does if with_preprocessing else None, labels
    )
    description = Description(
        network=Path(model.cfg.filename or "network").stem,
        classes=tuple(model.dataset_meta["classes"]),
        colours=tuple(tuple(colour) for colour in model.dataset_meta["palette"]),
        config=config_to_text(model.cfg),
        checkpoint=_checkpoint(checkpoint),
        precision=precision,
        input=_input(does, with_preprocessing),
        size=Size(None, None, None) if dynamic else Size(1, *size),
        output=network.output,
    )
    reference = Reference(model, does, photos)
    samples = [given(fitted(photo, *size)[None], description) for photo in photos]
    least = _smallest(reference, size, dynamic)
    with files_together(path) as part:
        task = Task(network, _example(description, does, size), description, samples)
        taken = _written(kind, task, part, size)
        smallest = None if least is None else max(least, taken)
        session = open_session(part, "cpu")
        found = verify(session, reference, tuple(sizes(size, smallest)))
        del session
        if found.fault is not None:
            raise UserError(
                f"{path} is not written: {found.fault}. {kind.title} runs another network than PyTorch; "
                f"{'leave out --dynamic, or ' if dynamic else ''}try another --format or --precision"
            )
    return Exported(description, smallest, found)


def _check(model: BaseSegmentor, does: Normalisation, with_preprocessing: bool, labels: bool) -> None:
    if with_preprocessing and does.fault is not None:
        raise UserError(
            f"--with-preprocessing takes pictures of 8 bits and normalises them, but {does.fault}; leave it "
            "out, and give the file what the pipeline makes"
        )
    if labels and (model.test_cfg or {}).get("mode") == "slide":
        raise UserError(
            "--labels: the config tests by windows (test_cfg.mode='slide'), whose logits are averaged before "
            "there are labels; leave out --labels, or take whole pictures: --cfg-options "
            "model.test_cfg.mode=whole"
        )


def _checkpoint(source: str | os.PathLike) -> Checkpoint:
    path = local_file(str(source)).expanduser()
    try:
        return Checkpoint(path.name, hashlib.sha256(read_file(path)).hexdigest())
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {reason_of(error)}") from error


def _input(does: Normalisation, with_preprocessing: bool) -> Input:
    if with_preprocessing:
        return Input("image", "uint8", "NHWC", "RGB" if does.channels else None)
    return Input("image", "float32", "NCHW", does.channels, does.mean, does.std)


def _smallest(reference: Reference, size: tuple[int, int], dynamic: bool) -> int | None:
    """The side of the smallest square that the network takes, if it has to take any."""
    reference.on(reference.pictures(1, *size))
    if not dynamic:
        return None
    found = reference.smallest(SMALLEST, max(SMALLEST, min(size) - 1))
    if found is None:
        raise UserError(
            f"the network takes pictures of {_named(size)}, and no smaller ones, so --dynamic is not for it: "
            f"leave that out (--size {size[0]} {size[1]} says which size the file takes)"
        )
    return found


def _example(description: Description, does: Normalisation, size: tuple[int, int]) -> Tensor:
    """An input with which the network is followed: a small one, where one size is as good as another."""
    batch, (height, width) = (1, size) if description.size.height else (2, (_SMALL[0], _SMALL[1]))
    if description.input.dtype == "uint8":
        return torch.zeros(batch, height, width, does.bands, dtype=torch.uint8)
    return torch.zeros(batch, does.bands, height, width)


# Of no two axes that are equal, at no stride: nothing that holds for it alone is taken for a rule.
_SMALL = (136, 200)


def _written(kind: Format, task: Task, part: Path, size: tuple[int, int]) -> int:
    try:
        return kind.write(task, part)
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # each library has its own kinds
        if task.description.size.height is None:
            fix = f"export it for one size: leave out --dynamic (--size {size[0]} {size[1]})"
        else:
            fix = f"choose another --format ({', '.join(name for name in FORMATS if name != kind.name)})"
        raise UserError(
            f"{task.description.network} cannot be exported as {kind.title}: {_reason(error)}; {fix}"
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of the error at the bottom; those above it say how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line_of(error)


def _named(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
