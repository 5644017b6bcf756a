"""What a service answers to pictures, to what is none, and at its other addresses."""

import io
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from danseg.apis import predict, read_picture
from danseg.visualization import overlay
from served import post


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb(side: int) -> bytes:
    """A whole PNG of one bit a pixel, and few bytes."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def test_labels_areas_and_overlays_are_those_of_direct_prediction(client, model, pictures):
    palette = model.dataset_meta["palette"]
    for content in pictures[:2]:
        labels = predict(model, content)
        answer = post(client, content)
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
        image = Image.open(io.BytesIO(answer.content))
        assert image.mode == "P" and len(np.unique(labels)) > 1
        np.testing.assert_array_equal(np.asarray(image), labels)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.array(palette)[labels])
        assert answer.content == post(client, content, params={"output": "labels"}).content

        said = post(client, content, params={"output": "areas"}).json()
        assert (said["height"], said["width"]) == labels.shape
        assert [area["class"] for area in said["areas"]] == list(model.dataset_meta["classes"])
        counts = np.bincount(labels.ravel(), minlength=len(palette))
        for id, area in enumerate(said["areas"]):
            assert area["id"] == id and area["colour"] == list(palette[id])
            assert (area["pixels"], area["share"]) == (counts[id], counts[id] / labels.size)

        drawn = post(client, content, params={"output": "overlay"})
        assert drawn.headers["content-type"] == "image/png"
        found = cv2.imdecode(np.frombuffer(drawn.content, np.uint8), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(found, overlay(read_picture(model, content), labels, palette))


GOOD = encoded(np.full((64, 96, 3), 90, np.uint8))
BAD = {
    "text named .png": (b"hello, world\n" * 9, 415, "no picture of a known format"),
    "bomb of 100 megapixels": (bomb(10_000), 413, "claims 10000x10000 pixels, more than 100000"),
    "too many bytes": (
        encoded(np.random.default_rng(0).integers(0, 256, (300, 300, 3))),
        413,
        "100000 bytes",
    ),
    "cut short": (GOOD[:-40], 422, "cut short"),
    "cut short, JPEG": (encoded(np.zeros((64, 96, 3), np.uint8), ".jpg")[:-60], 422, "truncated"),
    "header alone": (GOOD[:12], 415, "no picture of a known format"),
    "flipped bit": (GOOD[:60] + bytes([GOOD[60] ^ 1]) + GOOD[61:], 422, "wrong checksum"),
    "empty": (b"", 400, "0 bytes"),
    "16 bits": (encoded(np.zeros((64, 96, 3), np.uint16)), 422, "cut to 8 bits"),
    "no pixels": (bomb(0), 415, "no picture of a known format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', 415, "no picture"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_a_message_and_the_service_lives(client, name, monkeypatch):
    content, status, message = BAD[name]
    with monkeypatch.context() as patch:
        if status in (413, 415):  # what is too large, or no picture, is decoded by nobody
            patch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
        answer = post(client, content)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert message in answer.json()["error"]
    assert post(client, GOOD).status_code == 200
    assert client.get("/metrics").text.count("danseg_queue_length 0.0\n") == 1


@pytest.mark.parametrize("bands", [1, 4])
def test_grey_and_alpha_become_colours_as_everywhere(client, model, bands):
    content = encoded(np.random.default_rng(0).integers(0, 256, (32, 40, bands), dtype=np.uint8))
    labels = np.asarray(Image.open(io.BytesIO(post(client, content).content)))
    np.testing.assert_array_equal(labels, predict(model, content))


def test_other_bands_than_the_model_takes(make_service, model, among_clients, monkeypatch):
    """Its pipeline keeps alpha, its network takes three channels."""
    config = model.cfg.copy()
    pipeline = [dict(type="LoadImageFromFile", color_type="unchanged"), dict(type="PackSegInputs")]
    config.test_dataloader = dict(dataset=dict(config.test_dataloader.dataset, pipeline=pipeline))
    monkeypatch.setattr(model, "cfg", config)
    four = encoded(np.zeros((32, 40, 4), np.uint8))
    answer = among_clients(make_service(), lambda client: post(client, four))
    assert answer.status_code == 422 and "4 channels" in answer.json()["error"]


REQUESTS = {
    "no body": (dict(), 415, "not multipart/form-data"),
    "a body without a form": (dict(content=GOOD), 415, "not multipart/form-data"),
    "a body of another type": (
        dict(content=GOOD, headers={"content-type": "image/png"}),
        415,
        "image/png, not",
    ),
    "a form of no parts": (
        dict(content=b"--x--\r\n", headers={"content-type": "multipart/form-data; boundary=x"}),
        400,
        "the form is empty",
    ),
    "a form without a boundary": (
        dict(content=b"--x--\r\n", headers={"content-type": "multipart/form-data"}),
        400,
        "boundary",
    ),
    "a broken form": (
        dict(content=b"nothing of a form", headers={"content-type": "multipart/form-data; boundary=x"}),
        400,
        "multipart",
    ),
    "another field": (dict(files={"picture": ("x.png", GOOD)}), 400, "field 'picture'"),
    "a text in the field": (dict(files={"image": (None, "hello")}), 400, "Too many fields"),
    "two files": (dict(files=[("image", ("x.png", GOOD))] * 2), 400, "Too many files"),
    "a file and a text": (dict(files={"image": ("x.png", GOOD)}, data={"output": "areas"}), 400, "fields"),
    "another output": (
        dict(files={"image": ("x.png", GOOD)}, params={"output": "png"}),
        400,
        "output='png': Input should be 'labels', 'areas' or 'overlay'",
    ),
    "another parameter": (
        dict(files={"image": ("x.png", GOOD)}, params={"ouput": "areas"}),
        400,
        "there is no parameter 'ouput', only output",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_bad_request_is_refused_with_a_message(client, name):
    arguments, status, message = REQUESTS[name]
    answer = client.post("/segment", **arguments)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/segment", 405), ("GET", "/../etc", 404)],
)
def test_other_addresses(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(f"{method} {path.replace('/..', '')}: ")


def test_the_description_names_what_is_answered_and_the_page_shows_it(client):
    said = client.get("/openapi.json").json()
    assert set(said["paths"]) == {"/segment", "/healthz", "/readyz", "/metrics", "/docs"}
    operation = said["paths"]["/segment"]["post"]
    [parameter] = operation["parameters"]
    assert parameter["schema"]["enum"] == ["labels", "areas", "overlay"]
    statuses = {str(status) for _, status, _ in [*BAD.values(), *REQUESTS.values()]}
    assert statuses | {"200", "408", "503"} == set(operation["responses"])
    assert "HTTPValidationError" not in str(said)

    page = client.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(src|href|action)\s*=\s*[\"']?(https?:|//)|<script|@import|url\(", page.text)
    for path in said["paths"]:
        assert path in page.text
    assert 'formaction="segment?output=overlay"' in page.text and 'name="image"' in page.text


def test_metrics_tell_what_happened(make_service, among_clients, pictures):
    service = make_service()

    async def script(client):
        for content in [*pictures[:2], b"text"]:
            await post(client, content)
        return (await client.get("/metrics")).text

    lines = dict(
        line.rsplit(" ", 1) for line in among_clients(service, script).splitlines() if line[0] != "#"
    )
    assert lines['danseg_requests_total{status="200"}'] == "2.0"
    assert lines['danseg_requests_total{status="415"}'] == "1.0"
    assert lines["danseg_request_seconds_count"] == "3.0" and lines["danseg_queue_length"] == "0.0"
    assert lines["danseg_batch_size_sum"] == "2.0"
    assert float(lines["danseg_pixels_total"]) == 64 * 96 + 48 * 80
    assert float(lines["process_resident_memory_bytes"]) > 1e7
