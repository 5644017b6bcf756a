"""A service that listens on a port of this process, and how it is asked."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx

from danseg.serve import Service, application
from danseg.web.server import bound_socket, serve


@contextmanager
def listens(app: Any, places: Any, path: str) -> Iterator[str]:
    """The address of an application, once it answers at a path; it has stopped behind the block."""
    listening = bound_socket("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=serve, args=(app, places, listening))
    thread.start()
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:  # until it listens
            client.get(f"{address}{path}", timeout=20).raise_for_status()
        yield address
    finally:
        places.stop()
        thread.join(20)
    assert not thread.is_alive()


def served(service: Service) -> AbstractContextManager[str]:
    """A service's address, as :func:`listens`."""
    return listens(application(service), service, "/readyz")


def post(client: Any, content: bytes, **arguments: Any) -> Any:
    """What a client of httpx, of whichever kind, gets for a picture."""
    return client.post("/segment", files={"image": ("x.png", content)}, **arguments)
