"""What a service does when much is asked of it, when clients go away, when it stops, and when it fails."""

import asyncio
import io
import re
import threading
import time

import httpx
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.registry import TRANSFORMS
from PIL import Image

from danseg.apis import load_model, predict, prepare_for_inference
from danseg.apis.batches import Batches
from danseg.errors import UserError
from danseg.serve import Limits, Service, application
from served import post


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


def test_what_cannot_be_served_is_told_before_it_listens(model, monkeypatch):
    monkeypatch.setattr(
        model, "dataset_meta", dict(classes=tuple(map(str, range(257))), palette=[(0, 0, 0)] * 257)
    )
    with pytest.raises(UserError, match="257 classes; .* 256 colours"):
        Service(model)


@TRANSFORMS.register_module(force=True)
class FromPathsAlone(BaseTransform):
    """A user's own step that loads files."""

    def transform(self, results):
        return dict(results, img=np.load(results["img_path"]))


def test_pictures_that_have_to_be_files_are_told(model, monkeypatch):
    config = model.cfg.copy()
    pipeline = [dict(type="FromPathsAlone"), dict(type="PackSegInputs")]
    config.test_dataloader = dict(dataset=dict(config.test_dataloader.dataset, pipeline=pipeline))
    monkeypatch.setattr(model, "cfg", config)
    with pytest.raises(UserError, match="FromPathsAlone.*takes paths alone; .*LoadImageFromFile"):
        Service(model)


def test_a_network_that_does_not_work_is_told(model, monkeypatch):
    def forward(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("danseg.apis.batches.predict_labels", forward)
    with pytest.raises(UserError, match="first picture of 32x64 zeros: .*cannot be multiplied"):
        Service(model)


def test_a_network_of_grey_pictures(request, among_clients):
    config = Config.fromfile(request.config.rootpath / "tests" / "engine" / "tiny.py")
    config.model.data_preprocessor.update(mean=[100.0], std=[50.0], bgr_to_rgb=False)
    config.model.backbone.in_channels = 1
    pipeline = [dict(type="LoadImageFromFile", color_type="grayscale"), dict(type="PackSegInputs")]
    config.test_dataloader.dataset.pipeline = pipeline
    torch.manual_seed(0)
    network = prepare_for_inference(load_model(config, None, "cpu"))
    picture = b"P5 80 48 255\n" + np.random.default_rng(0).bytes(80 * 48)
    answer = among_clients(Service(network), lambda client: post(client, picture))
    labels = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(labels, predict(network, picture))


@pytest.mark.parametrize("how", [dict(), dict(size=(40, 56), batch=1)], ids=["any size", "one size"])
def test_an_exported_network_is_served_as_it_is(how, make_exported, among_clients):
    """One that takes a single picture of a single size gets what it takes, though pictures wait together."""
    network, draw = make_exported(**how)
    pictures = [draw(seed, 40, 56) for seed in range(4)]
    service = Service(network, Limits(wait=0.2))

    async def script(client):
        return await asyncio.gather(*(post(client, one) for one in pictures), post(client, draw(4, 48, 64)))

    *answers, other = among_clients(service, script)
    for picture, answer in zip(pictures, answers, strict=True):
        labels = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert (labels != predict(network, picture)).mean() < 1e-3
    assert other.status_code == (422 if how else 200)
    assert not how or "48" in other.json()["error"]
