"""Pictures, and files that are none, as visitors of a page send them."""

import struct
import zlib

import cv2
import numpy as np


def drawn(seed: int, size: tuple[int, int] = (48, 72)) -> bytes:
    """Coarse random colours, smoothed, as a PNG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", image)[1].tobytes()


def _bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


_DEEP = cv2.imencode(".png", np.full((16, 16, 3), 40000, np.uint16))[1].tobytes()
#: What is sent, and what is said, by a program that takes 200,000 bytes and 1,000,000 pixels.
BAD = {
    "a text": (b"Dear Sir or Madam,", "no picture of a known format"),
    "an empty file": (b"", "no picture of a known format"),
    "a bomb": (_bomb(4000), "4000x4000 pixels, more than 1000000; send a smaller one"),
    "a truncated picture": (drawn(0)[:-200], "cut short"),
    "16 bits": (_DEEP, "would be cut to 8 bits: save it with 8 bits a channel"),
    "too many bytes": (bytes(200_001), "more than 200000 bytes; send a smaller file"),
}
