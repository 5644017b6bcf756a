"""What a service counts, in Prometheus's form."""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one service, and of the process it runs in.

    Args:
        places: tells how many requests are in work or wait.
    """

    def __init__(self, places: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        add: dict[str, Any] = dict(registry=self._registry)
        self.requests = Counter(
            "danseg_requests", "Requests to segment a picture, by the status of the answer", ["status"], **add
        )
        self.seconds = Histogram(
            "danseg_request_seconds", "From a request's header to its answer", buckets=_SECONDS, **add
        )
        self.batches = Histogram(
            "danseg_batch_size", "Pictures that went through the network together", buckets=_BATCHES, **add
        )
        self.pixels = Counter("danseg_pixels", "Pixels of the pictures that were segmented", **add)
        Gauge("danseg_queue_length", "Requests in work or waiting", **add).set_function(places)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)


class CountedRequests:
    """ASGI middleware that counts the requests to one path, whoever answers them."""

    def __init__(self, app: Any, metrics: Metrics, path: str) -> None:
        self._app, self._metrics, self._path = app, metrics, path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500  # which the server says for what nobody has answered

        async def noting(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.requests.labels(status).inc()
            self._metrics.seconds.observe(time.monotonic() - start)
