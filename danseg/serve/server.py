"""Listens for a service, and stops when a signal asks for it."""

import signal
import socket
from types import FrameType
from typing import Any

import uvicorn

from danseg.errors import UserError, reason_of
from danseg.serve.service import Service

# After the last answer was made, so many seconds may pass until it has gone out.
_SENDING = 5


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket of this address; nobody listens on it yet.

    Args:
        host: a name or an address of this machine.
        port: 0 for any that is free.

    Raises:
        UserError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once, without Nagle's wait of 40 ms an answer, if the socket names the protocol.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise UserError(
            f"cannot listen on port {port} of {host}: {reason_of(error)}; name another --port, or a --host "
            "that is this machine's"
        ) from error
    return made


def serve(app: Any, service: Service, listening: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT comes, then what was accepted, and return; for the main thread.

    New requests are answered with 503 meanwhile. A second signal ends it at once.

    Args:
        app: from :func:`danseg.serve.application`.
        service: the one that it is of.
        listening: from :func:`bound_socket`; it is closed.
    """
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=_SENDING
    )
    _Server(config, service).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn, which would close its socket at once, and end by the signal."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            print(
                f"serving {self._service.name} at http://{host}:{port} (/docs tells how); Ctrl-C stops it",
                flush=True,
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.stopping:
            self.should_exit = self.force_exit = True
            return
        self._service.stop()
        name = signal.Signals(sig).name
        print(f"{name}: stopping after {self._service.places} requests that were accepted", flush=True)

    async def on_tick(self, counter: int) -> bool:
        return self._service.stopped or await super().on_tick(counter)
