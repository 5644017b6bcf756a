"""A service that listens on a port: how it is bound, how fast it answers, what it does with long bodies."""

import http.client
import re
import socket
import statistics
import time

import pytest

from danseg.errors import UserError
from danseg.serve import bound_socket


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on port {port} of 127.0.0.1: .*--port"):
            bound_socket("127.0.0.1", port)


def test_a_host_of_another_machine_is_told():
    with pytest.raises(UserError, match="cannot listen on port 80 of 192.0.2.1: .*--host"):
        bound_socket("192.0.2.1", 80)


def test_answers_on_an_open_connection_are_sent_at_once(client):
    def seconds() -> float:
        start = time.perf_counter()
        assert client.get("/healthz").status_code == 200
        return time.perf_counter() - start

    # Where a packet waits for the other side to confirm the one before, it is 40 ms.
    assert statistics.median(seconds() for _ in range(9)) < 0.03


def test_who_sends_far_too_much_still_gets_the_answer(client):
    """All of it is taken off the connection, so that it does not break before the answer is read."""
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=20)
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
    connection.request(
        "POST",
        "/segment",
        iter([head, *[bytes(50_000)] * 200]),  # in chunks: no header tells the length
        {"Content-Type": "multipart/form-data; boundary=x"},
        encode_chunked=True,
    )
    answer = connection.getresponse()
    assert answer.status == 413 and b"more than 100000 bytes" in answer.read()
    connection.close()
    assert client.get("/readyz").status_code == 200


def test_a_connection_that_breaks_frees_its_place(client):
    def gone() -> int:
        found = re.search(r'requests_total\{status="499"\} (\d+)', client.get("/metrics").text)
        return int(found[1]) if found else 0

    before = gone()
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(
            b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        while "danseg_queue_length 1.0\n" not in client.get("/metrics").text:
            time.sleep(0.005)
    until = time.monotonic() + 10
    while gone() == before and time.monotonic() < until:
        time.sleep(0.005)
    assert gone() == before + 1 and "danseg_queue_length 0.0\n" in client.get("/metrics").text
