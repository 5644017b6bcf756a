"""The benchmark of the service sees what is lost, wrong or bad; and its bad uploads are bad."""

import asyncio
import contextlib
import json
from collections import Counter

import numpy as np
import pytest

from benchmarks import serving, serving_requests
from danseg.io.images import encode_indexed

LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
RIGHT = encode_indexed(LABELS, [(0, 0, 0)] * 3)
WRONG = encode_indexed(LABELS[::-1], [(0, 0, 0)] * 3)
METRICS = b"danseg_batch_size_count 2.0\ndanseg_batch_size_sum 5.0\nprocess_resident_memory_bytes 1e+08\n"


def under_load(answer) -> serving.Load:
    """Two clients of a server whose ``answer(content)`` gives status and body, or None to hang up."""
    load = serving.Load(2, 0.3)
    good = [serving_requests.request("labels", [("image", b"a picture")], "?output=labels", labels=LABELS)]
    bad = [serving_requests.request("no file", [], "")]

    async def handle(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):  # the client has hung up
            await talk(reader, writer)

    async def talk(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int((head.lower().partition(b"content-length: ")[2] or b"0").split()[0])
            body = await reader.readexactly(length)
            found = (200, METRICS) if head.startswith(b"GET") else answer(body)
            if found is None:
                break
            writer.write(
                b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (found[0], len(found[1]), found[1])
            )
            await asyncio.sleep(0.002)
        writer.close()

    async def run():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await serving.Clients(port, good, bad, load).carry_out()
        server.close()

    asyncio.run(run())
    load.exit_status = 0
    return load


def right(body: bytes):
    return (200, RIGHT) if b"a picture" in body else (400, json.dumps({"error": "no file"}).encode())


def missed(load: serving.Load) -> list[str]:
    assert len(load.lines()) == 1 + len(load.verdicts())
    return [line for kept, line in load.verdicts() if not kept]


def test_a_service_that_does_all_right_keeps_all_promises():
    load = under_load(right)
    assert missed(load) == [] and load.batch == 2.5 and set(load.memory) == {10**8}
    counts = {what: Counter(of) for what, of in load.answers.items()}
    assert set(counts) == {"labels", "no file"} and counts["labels"]["200"] > counts["no file"]["400"] > 0
    assert 0 < load.latencies[0] <= load.latencies[-1] < 0.3


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda body: None if b"a picture" in body else right(body), "no answer"),
        (lambda body: (503, b"{}") if b"a picture" in body else right(body), "wrong answers: labels: 503"),
        (lambda body: (200, WRONG) if b"a picture" in body else right(body), "labels differ"),
        (lambda body: right(body) if b"a picture" in body else (200, b'{"error": ""}'), "no file: 200"),
        (lambda body: right(body) if b"a picture" in body else (400, b'{"detail": ""}'), "no file: 400"),
    ],
)
def test_what_goes_wrong_is_seen(answer, line):
    assert any(line in one for one in missed(under_load(answer)))


def test_memory_that_grows_and_a_status_are_seen():
    load = serving.Load(1, 60, 10, {"no file": {"400": 1}}, latencies=[0.0] * 4, exit_status=-15)
    load.memory = [100 * 2**20 + at * 2**17 for at in range(120)]  # medians: 102.4375 and 112.4375 MiB
    assert missed(load) == [
        "memory: +9.76% from the first third to the last (100 to 115 MiB)",
        "after SIGTERM it ended with status -15",
    ]


def test_a_stored_result_is_read_again(tmp_path, capsys):
    load = serving.Load(2, 3.0, 0, {"labels": {"200": 6}}, memory=[1, 1], latencies=[0.1] * 4, exit_status=0)
    path = tmp_path / "serving.json"
    path.write_text(json.dumps({"load": vars(load)}))
    serving.main(["--markdown", str(path)])
    assert "- kept: 6 requests answered, 0 lost" in capsys.readouterr().out


def test_bombs_are_small_and_whole():
    from danseg.io.image_headers import claimed_size, require_whole

    content = serving_requests.bomb(800)
    require_whole(content)
    assert claimed_size(content) == (800, 800, 1) and len(content) < 1000
