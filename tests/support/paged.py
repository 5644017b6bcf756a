"""A page that listens on a port of this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from danseg.app.explorer import Explorer
from danseg.app.page_server import page_application
from danseg.web.server import bound_socket, serve


@contextmanager
def paged(explorer: Explorer) -> Iterator[str]:
    """Its address; it has stopped behind the block."""
    listening = bound_socket("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=serve, args=(page_application(explorer), explorer, listening))
    thread.start()
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:  # until it listens
            client.get(f"{address}/config", timeout=20).raise_for_status()
        yield address
    finally:
        explorer.stop()
        thread.join(20)
    assert not thread.is_alive()
