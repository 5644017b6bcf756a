"""The requests of benchmarks.serving: pictures, with what has to come back, and what strangers send."""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SIZES = ((64, 96), (48, 80))  # of the pictures, four of each
LARGEST = 1_000_000  # bytes of a request
_BORDER = b"c9f2d1"


@dataclass(frozen=True)
class Asked:
    """A request, as bytes to send, and what its answer has to be.

    Attributes:
        what: names it.
        content: head and body.
        labels: of the picture, if labels are asked for.
        counts: pixels of each class, if areas are.
    """

    what: str
    content: bytes
    labels: np.ndarray | None = None
    counts: list[int] | None = None

    @property
    def bad(self) -> bool:
        return self.labels is None and self.counts is None


def request(what: str, files: Sequence[tuple[str, bytes]], query: str, **expected: Any) -> Asked:
    """A request with files in a form."""
    parts = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="x.png"\r\n\r\n%s\r\n'
        % (_BORDER, name.encode(), content)
        for name, content in files
    )
    body = parts + b"--%s--\r\n" % _BORDER
    head = (
        f"POST /segment{query} HTTP/1.1\r\nHost: loopback\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BORDER.decode()}\r\n\r\n"
    )
    return Asked(what, head.encode() + body, **expected)


def bomb(side: int) -> bytes:
    """A PNG of side x side white pixels of one bit, in a few kilobytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff" * -(-side // 8)) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bad_requests(picture: bytes) -> list[Asked]:
    """What strangers send."""
    files = {
        "a text named .png": b"no picture\n" * 20,
        "a bomb of 100 megapixels": bomb(10_000),
        "a cut picture": picture[: len(picture) // 2],
        "an empty file": b"",
        "too many bytes": picture + bytes(LARGEST),
        "16 bits": cv2.imencode(".png", np.zeros((64, 96, 3), np.uint16))[1].tobytes(),
    }
    return [
        *(request(what, [("image", content)], "") for what, content in files.items()),
        request("no file", [], ""),
        request("two files", [("image", picture)] * 2, ""),
        request("an unknown output", [("image", picture)], "?output=gif"),
    ]


def draw_pictures() -> list[bytes]:
    """PNGs of coarse random colours, smoothed, of all sizes."""
    rng, made = np.random.default_rng(0), []
    for height, width in 4 * SIZES:
        coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        made.append(cv2.imencode(".png", picture)[1].tobytes())
    return made


def good_requests(model: Any, pictures: Sequence[bytes]) -> list[Asked]:
    """Pictures, with what predicting them directly gives."""
    from danseg.apis import predict

    made, classes = [], len(model.dataset_meta["classes"])
    for content in pictures:
        labels = predict(model, content)
        counts = np.bincount(labels.ravel(), minlength=classes).tolist()
        made.append(request("labels", [("image", content)], "?output=labels", labels=labels))
        made.append(request("areas", [("image", content)], "?output=areas", counts=counts))
    return made


def differing(asked: Asked, body: bytes) -> float:
    """The share of a picture's pixels that are answered otherwise than predicted."""
    if asked.labels is not None:
        from danseg.label_maps.label_png import decode_label_map

        return float((decode_label_map(body, "an answer") != asked.labels).mean())
    said = [area["pixels"] for area in json.loads(body)["areas"]]
    return float(np.abs(np.array(said) - asked.counts).sum() / 2 / sum(asked.counts))
