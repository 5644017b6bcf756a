"""A body is counted while it is read, and a picture's size is known before it is decoded."""

import asyncio
import io

import cv2
import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request

from danseg.io.images import IMAGE_SUFFIXES, decode_image_rows
from danseg.web.request_limits import RefusedError, RequestLimits
from danseg.web.uploads import claimed_pixels, read_upload

BORDER = b"--x\r\n"
HEADER = b'Content-Disposition: form-data; name="image"; filename="../../etc/passwd"\r\n\r\n'


def request(pieces: list[bytes], **headers: str) -> tuple[Request, list[bytes]]:
    """A request whose body comes in pieces; those that were not asked for stay in the list."""
    left = list(pieces)

    async def receive() -> dict:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    raw = {"content-type": "multipart/form-data; boundary=x", **headers}
    scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in raw.items()]}
    return Request(scope, receive), left


async def content(asked: Request, limits: RequestLimits) -> bytes:
    upload = await read_upload(asked, limits)
    try:
        return await upload.read()
    finally:
        await upload.close()


@pytest.mark.parametrize("size", [1, 3_000_000])  # kept in memory, and on the disk
def test_a_file_comes_as_it_was_sent_whatever_its_name(size):
    sent = np.random.default_rng(0).bytes(size)
    body = BORDER + HEADER + sent + b"\r\n--x--\r\n"
    asked, left = request([body[at : at + 70_000] for at in range(0, len(body), 70_000)])
    assert asyncio.run(content(asked, RequestLimits())) == sent and not left


@pytest.mark.parametrize("claimed", [None, "10", "1000000000"])
def test_no_more_is_read_than_allowed_whatever_the_header_claims(claimed):
    pieces = [BORDER + HEADER, *[bytes(1000)] * 100]
    asked, left = request(pieces, **({"content-length": claimed} if claimed else {}))
    with pytest.raises(RefusedError, match="more than 5000 bytes") as raised:
        asyncio.run(content(asked, RequestLimits(bytes=5000)))
    assert raised.value.status == 413 and len(left) == 95


def test_headers_without_end_are_refused():
    asked, left = request([BORDER, *[b"X-Header: " + bytes(1000)] * 100])
    with pytest.raises(RefusedError) as raised:
        asyncio.run(content(asked, RequestLimits(bytes=50_000)))
    assert raised.value.status in (400, 413) and len(left) >= 50


def drawn(suffix: str) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    if suffix in (".pbm", ".pgm"):
        image = image[..., 0]
    try:
        done, data = cv2.imencode(suffix, image)
        return data.tobytes() if done else b""
    except cv2.error:
        with io.BytesIO() as file:
            Image.fromarray(image).save(file, suffix[1:])
            return file.getvalue()


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_the_claimed_size_is_the_size_of_every_format(suffix):
    data = drawn(suffix)
    size = decode_image_rows(data)[1]
    assert size == (48, 80)
    assert claimed_pixels(data, 48 * 80) == 48 * 80
    with pytest.raises(RefusedError, match="80x48 pixels, more than 3839") as raised:
        claimed_pixels(data, 48 * 80 - 1)
    assert raised.value.status == 413
