"""Listens for what answers requests, and stops when a signal asks for it."""

import signal
import socket
from types import FrameType
from typing import Any

import uvicorn

from danseg.errors import UserError, reason_of
from danseg.web.places import Places

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


def serve(app: Any, answering: Places, listening: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT comes, then what was accepted, and return; for the main thread.

    New requests are answered with 503 meanwhile. A second signal ends it at once.

    Args:
        app: the ASGI application.
        answering: what answers its requests.
        listening: from :func:`bound_socket`; it is closed.
    """
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=_SENDING
    )
    _Server(config, answering).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn, which would close its socket at once, and end by the signal."""

    def __init__(self, config: uvicorn.Config, answering: Places) -> None:
        super().__init__(config)
        self._answering = answering

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            hint = f" ({self._answering.hint})" if self._answering.hint else ""
            print(
                f"serving {self._answering.name} at http://{host}:{port}{hint}; Ctrl-C stops it", flush=True
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._answering.stopping:
            self.should_exit = self.force_exit = True
            return
        self._answering.stop()
        name = signal.Signals(sig).name
        print(f"{name}: stopping after {self._answering.places} requests that were accepted", flush=True)

    async def on_tick(self, counter: int) -> bool:
        return self._answering.stopped or await super().on_tick(counter)
