"""A service that listens on a port of this process, and how it is asked."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from danseg.serve import Service, application, bound_socket, serve


@contextmanager
def served(service: Service) -> Iterator[str]:
    """Its address; it has stopped behind the block."""
    listening = bound_socket("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=serve, args=(application(service), service, listening))
    thread.start()
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:  # until it listens
            client.get(f"{address}/readyz").raise_for_status()
        yield address
    finally:
        service.stop()
        thread.join(20)
    assert not thread.is_alive()


def post(client: Any, content: bytes, **arguments: Any) -> Any:
    """What a client of httpx, of whichever kind, gets for a picture."""
    return client.post("/segment", files={"image": ("x.png", content)}, **arguments)
