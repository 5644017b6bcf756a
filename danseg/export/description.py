"""What an exported file says of itself, as JSON: classes, colours, sizes, input, output, config, weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from danseg.errors import UserError

#: The name under which files keep the text: ONNX's ``metadata_props``, OpenVINO's ``rt_info``.
KEY = "danseg"
#: The name of the text among the further files inside a ``.pt2`` or a TorchScript's ``.pt``.
FILE = "danseg.json"
#: Which form of the text this is; a reader refuses what is newer than it knows.
VERSION = 1

# What a field may hold, by class and field.
_ALLOWED: dict[str, dict[str, tuple]] = {
    "Input": {
        "dtype": ("float32", "uint8"),
        "layout": ("NCHW", "NHWC"),
        "channels": ("RGB", "BGR", None),
    },
    "Output": {"name": ("logits", "labels"), "dtype": ("float32", "uint8", "int64")},
    "Description": {"precision": ("float32", "float16", "int8")},
}


def _check(one: object) -> None:
    for field, allowed in _ALLOWED[type(one).__name__].items():
        value = getattr(one, field)
        if value not in allowed:
            raise ValueError(f"{field} must be one of {', '.join(map(str, allowed))}, got {value!r}")


@dataclass(frozen=True)
class Checkpoint:
    """Where the weights come from: the checkpoint's file name, and the SHA-256 of its bytes in hex."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Input:
    """What the network takes.

    Attributes:
        name: of the input in the graph.
        dtype: "uint8" for the picture as it is, "float32" for a normalised one.
        layout: "NHWC" for pictures, "NCHW" for normalised ones.
        channels: the order of the colours, "RGB" or "BGR"; None for other than three channels.
        mean, std: what the caller subtracts and then divides by, per channel, in the picture's units (0..255
            of 8 bits); None where the graph does it, or nothing is to be done.
    """

    name: str
    dtype: str
    layout: str
    channels: str | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Size:
    """How many pictures of which size in pixels the network takes at a time; None: any."""

    batch: int | None
    height: int | None
    width: int | None


@dataclass(frozen=True)
class Output:
    """What the network gives.

    Attributes:
        name: "logits" (B, K, h, w), the head's own, as coarse as the head; "labels" (B, H, W), ids of classes
            at the input's size.
        dtype: of the numbers.
        align_corners: how the logits are resized to the picture.
        threshold: the probability above which a pixel is of class 1, for logits of one channel; else None.
    """

    name: str
    dtype: str
    align_corners: bool = False
    threshold: float | None = None

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Description:
    """All that a file says of itself.

    Attributes:
        network: the config's name, such as "danet_r50_cityscapes".
        classes: their names, by id.
        colours: (red, green, blue) of each class.
        config: the text of the whole config, without bases.
        checkpoint: where the weights come from.
        precision: "float32", "float16" or "int8".
    """

    network: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    config: str
    checkpoint: Checkpoint
    precision: str
    input: Input
    size: Size
    output: Output

    def __post_init__(self) -> None:
        _check(self)
        if len(self.classes) != len(self.colours):
            raise ValueError(f"{len(self.classes)} classes, but {len(self.colours)} colours")

    def to_json(self) -> str:
        """The text that a file holds."""
        return json.dumps({"danseg": VERSION, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: object) -> "Description":
        """Read the text of a file.

        Args:
            text: as :meth:`to_json` gives it.
            source: the file, for messages.

        Raises:
            UserError: the text is not of that form, or of a newer one.
        """
        try:
            found = json.loads(text)
            version = found.pop("danseg")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{source} holds no description by danseg: {error!r}; export it again") from error
        if version != VERSION:
            raise UserError(
                f"{source} describes itself in form {version!r}, and this danseg reads form {VERSION}; "
                "install a danseg that fits, or export it again with this one"
            )
        try:
            return _of(found)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{source} holds a damaged description by danseg ({error}); export it again"
            ) from error


def _of(found: Mapping[str, Any]) -> Description:
    parts: dict[str, Any] = dict(found)
    taken = dict(found["input"])
    for name in ("mean", "std"):
        if taken.get(name) is not None:
            taken[name] = tuple(float(number) for number in taken[name])
    parts["classes"] = tuple(found["classes"])
    parts["colours"] = tuple(tuple(int(part) for part in colour) for colour in found["colours"])
    parts["checkpoint"] = Checkpoint(**found["checkpoint"])
    parts["input"] = Input(**taken)
    parts["size"] = Size(**found["size"])
    parts["output"] = Output(**found["output"])
    return Description(**parts)
