"""What a service answers: to pictures, to what is none, and to more than it can do."""

import asyncio
import io
import re
import struct
import threading
import time
import zlib

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from danseg.apis import predict, read_picture
from danseg.apis.batches import Batches
from danseg.serve import application
from danseg.visualization import overlay


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb(side: int) -> bytes:
    """A whole PNG of one bit a pixel, and few bytes."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def post(client, content: bytes, **kwargs):
    return client.post("/segment", files={"image": ("x.png", content)}, **kwargs)


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


@pytest.fixture
def held_network(monkeypatch):
    """The network waits for an event; ``started`` is set as soon as it does."""
    let, started, real = threading.Event(), threading.Event(), Batches.labels

    def labels(self, samples):
        if threading.current_thread().name == "network":
            started.set()
            assert let.wait(20)
        return real(self, samples)

    monkeypatch.setattr(Batches, "labels", labels)
    yield let, started
    let.set()


async def until(holds) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


def test_a_full_queue_is_announced(make_service, among_clients, pictures, held_network):
    service, (let, _) = make_service(queue=3), held_network

    async def script(client):
        accepted = [asyncio.ensure_future(post(client, one)) for one in pictures[:3]]
        await until(lambda: service.places == 3)
        refused, ready, alive = (
            await post(client, pictures[0]),
            *[await client.get(f"/{one}z") for one in ("ready", "health")],
        )
        let.set()
        answers = await asyncio.gather(*accepted)
        return refused, ready, alive, answers, await client.get("/readyz")

    refused, ready, alive, answers, later = among_clients(service, script)
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
    assert "3 requests are in work or wait" in refused.json()["error"]
    assert (ready.status_code, alive.status_code, later.status_code) == (503, 200, 200)
    assert [one.status_code for one in answers] == [200] * 3


def test_a_stop_answers_what_was_accepted_and_refuses_the_rest(
    make_service, among_clients, pictures, held_network
):
    service, (let, started) = make_service(), held_network

    async def script(client):
        accepted = asyncio.ensure_future(post(client, pictures[0]))
        await until(started.is_set)
        assert not service.stopped
        service.stop()
        refused, ready = await post(client, pictures[0]), await client.get("/readyz")
        assert not service.stopped
        let.set()
        answer = await accepted
        assert service.stopped
        return answer, refused, ready

    answer, refused, ready = among_clients(service, script)
    assert (answer.status_code, refused.status_code, ready.status_code) == (200, 503, 503)
    assert "stopping" in refused.json()["error"] and refused.headers["connection"] == "close"


def test_a_stop_does_not_wait_for_ever(make_service):
    service = make_service(seconds=0.1)
    service.start()
    with service.place():  # which nobody gives back
        service.stop()
        assert not service.stopped
        time.sleep(0.15)
        assert service.stopped
    service.close()


def test_time_is_limited(make_service, among_clients, pictures, held_network):
    service, (let, _) = make_service(seconds=0.2), held_network

    async def script(client):
        answer = await post(client, pictures[0])
        assert service.places == 0
        let.set()
        return answer, await post(client, pictures[1])

    answer, later = among_clients(service, script)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert "no answer within 0.2 s" in answer.json()["error"] and later.status_code == 200


def scope(content: bytes) -> tuple[dict, bytes]:
    """What a server tells an application of a request, and its body."""
    request = httpx.Request("POST", "http://test/segment", files={"image": ("x.png", content)})
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    asked = dict(type="http", method="POST", path="/segment", query_string=b"", headers=headers)
    return {**asked, "http_version": "1.1", "scheme": "http", "server": ("test", 80)}, request.read()


def test_a_slow_upload_is_ended(make_service, among_clients, pictures):
    service = make_service(seconds=0.2)

    async def script(_):
        asked, body = scope(pictures[0])
        sent = []

        async def receive():
            if not sent:
                sent.append("a half")
                return dict(type="http.request", body=body[: len(body) // 2], more_body=True)
            await asyncio.sleep(30)

        async def send(message):
            sent.append(message)

        await application(service)(asked, receive, send)
        return sent[1]

    answer = among_clients(service, script)
    assert answer["status"] == 408 and (b"connection", b"close") in answer["headers"]
    assert service.places == 0


@pytest.mark.parametrize("when", ["while it uploads", "while it waits"])
def test_a_client_that_goes_away_frees_its_place(make_service, among_clients, pictures, held_network, when):
    service, (let, started) = make_service(queue=1, batch_size=1), held_network

    async def script(client):
        asked, body = scope(pictures[0])
        gone = asyncio.Event()
        pieces = [dict(type="http.request", body=body, more_body=when == "while it uploads")]

        async def receive():
            if pieces:
                return pieces.pop()
            await gone.wait()
            return dict(type="http.disconnect")

        async def send(message):
            pass

        request = asyncio.ensure_future(client._transport.app(asked, receive, send))
        await until(started.is_set if when == "while it waits" else lambda: not pieces)
        assert (await post(client, pictures[1])).status_code == 503
        gone.set()
        await request
        assert service.places == 0
        let.set()
        answer = await post(client, pictures[1])
        return answer, (await client.get("/metrics")).text

    answer, metrics = among_clients(service, script)
    assert answer.status_code == 200
    assert 'danseg_requests_total{status="499"} 1.0' in metrics


def test_one_that_went_away_is_not_computed(make_service, among_clients, pictures, held_network, monkeypatch):
    service, (let, started) = make_service(batch_size=1, seconds=0.5), held_network

    async def script(client):
        first = asyncio.ensure_future(post(client, pictures[0]))
        await until(started.is_set)
        second = asyncio.ensure_future(post(client, pictures[2]))
        await asyncio.gather(first, second)  # both are out of time
        let.set()
        await post(client, pictures[1])
        return (await client.get("/metrics")).text

    # The first one was in the network, the second waited for it, the third came later.
    assert "danseg_batch_size_sum 2.0" in among_clients(service, script)


def test_a_fault_of_the_service_is_told_without_its_inside(
    make_service, among_clients, pictures, monkeypatch
):
    def labels(self, samples):
        raise KeyError("secret")

    service = make_service()
    monkeypatch.setattr(Batches, "labels", labels)

    async def script(client):
        return await post(client, pictures[0]), await client.get("/healthz")

    answer, alive = among_clients(service, script)
    assert answer.status_code == 500 and "secret" not in answer.text
    assert answer.json() == {"error": "the service failed; its log says why"} and alive.status_code == 200


def test_a_broken_gpu_is_told_to_whoever_starts_the_process(
    make_service, among_clients, pictures, monkeypatch
):
    def labels(self, samples):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    service = make_service()
    monkeypatch.setattr(Batches, "labels", labels)

    async def script(client):
        first = await post(client, pictures[0])
        return first, [
            await client.get("/healthz"),
            await client.get("/readyz"),
            await post(client, pictures[0]),
        ]

    first, later = among_clients(service, script)
    assert first.status_code == 500 and [one.status_code for one in later] == [503] * 3
    assert "illegal memory access was encountered" in later[0].json()["error"]


def test_too_little_memory_is_told(make_service, among_clients, pictures, monkeypatch):
    service = make_service()

    def forward(*_, **__):
        raise MemoryError

    monkeypatch.setattr("danseg.apis.batches.predict_labels", forward)
    answer = among_clients(service, lambda client: post(client, pictures[0]))
    assert answer.status_code == 503 and "send a smaller picture" in answer.json()["error"]


def test_many_clients_get_the_labels_of_their_own_pictures(make_service, among_clients, model, pictures):
    service = make_service(wait=0.05)

    async def script(client):
        answers = await asyncio.gather(*(post(client, pictures[at % 6]) for at in range(36)))
        return answers, (await client.get("/metrics")).text

    answers, metrics = among_clients(service, script)
    direct = [predict(model, one) for one in pictures]
    for at, answer in enumerate(answers):
        labels = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert (labels != direct[at % 6]).mean() < 1e-3  # a batch rounds its sums in another order
    batches = float(re.search(r"danseg_batch_size_count (\S+)", metrics)[1])
    assert batches < 18
