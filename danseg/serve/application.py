"""The service's addresses: what is asked, what is answered, with which status."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from danseg.serve.answers import ANSWERS, JSON, PNG, Output
from danseg.serve.service import Service
from danseg.serve.service_metrics import CountedRequests
from danseg.serve.service_page import page
from danseg.version import __version__
from danseg.web.request_limits import RefusedError
from danseg.web.uploads import FIELD, read_upload

SEGMENT = "/segment"
# nginx's number for a client that did not wait for its answer; it is counted, and nobody gets it.
_GONE = 499
_WHY = {
    400: "not one picture in a form, or another parameter or value than those above",
    408: "the picture did not arrive in time",
    413: "too many bytes or pixels",
    415: "no form, or no picture",
    422: "a picture that is damaged, or that the model does not take",
    503: "busy, stopping or broken; Retry-After says when to try again",
}


class Parameters(BaseModel):
    """Of a request to segment; others are refused."""

    model_config = ConfigDict(extra="forbid")
    output: Output = "labels"


class Refusal(BaseModel):
    """An error: one message."""

    error: str


def application(service: Service) -> FastAPI:
    """The service as an ASGI application; it starts and closes the service.

    Args:
        service: not started yet.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title=f"danseg: {service.name}",
        version=__version__,
        description="Semantic segmentation of pictures.",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(CountedRequests, metrics=service.metrics, path=SEGMENT)
    refusals: dict[int | str, Any] = {
        status: {"model": Refusal, "description": why} for status, why in _WHY.items()
    }
    broken: dict[int | str, Any] = {503: {"model": Refusal, "description": "no; the message says why"}}

    @app.post(
        SEGMENT,
        summary="Segment a picture",
        description="Answers with `labels`: a PNG of class ids that shows the classes' colours; `areas`: the "
        "pixels and the share of each class; or `overlay`: a PNG of the colours over the picture.",
        response_class=Response,
        responses={200: {"description": "what was asked for", "content": {PNG: {}, JSON: {}}}, **refusals},
        openapi_extra={"requestBody": _form()},
    )
    async def segment(request: Request, parameters: Annotated[Parameters, Query()]) -> Response:
        until = time.monotonic() + service.limits.seconds
        with service.place():
            try:
                upload = await asyncio.wait_for(read_upload(request, service.limits), service.limits.seconds)
            except asyncio.TimeoutError:
                raise RefusedError(
                    408, f"the picture did not arrive within {service.limits.seconds:g} s", closing=True
                ) from None
            try:
                left = until - time.monotonic()
                made = await _unless_gone(service.answer(upload, parameters.output), request, left)
            except asyncio.TimeoutError:
                raise RefusedError(
                    503,
                    f"no answer within {service.limits.seconds:g} s; try again, or send a smaller picture",
                ) from None
            finally:
                await upload.close()
        return Response(made, media_type=ANSWERS[parameters.output][0])

    @app.get("/healthz", summary="Whether the process is alive", responses=broken)
    async def healthz() -> dict[str, bool]:
        service.require_life()
        return {"alive": True}

    @app.get("/readyz", summary="Whether another request would be accepted", responses=broken)
    async def readyz() -> dict[str, bool]:
        service.require_place()
        return {"ready": True}

    @app.get("/metrics", summary="Counters, for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", summary="This page", response_class=HTMLResponse)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()), headers={"Content-Security-Policy": _POLICY})

    _answer_errors(app)
    return app


# The page needs nothing but its own style, and sends its form to the service alone.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"


def _form() -> dict[str, Any]:
    picture = {"type": "string", "format": "binary", "description": "PNG, JPEG, TIFF, WebP, BMP or GIF"}
    schema = {"type": "object", "required": [FIELD], "properties": {FIELD: picture}}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


async def _unless_gone(work: Coroutine[Any, Any, bytes], request: Request, seconds: float) -> bytes:
    """The result of some work, which ends early if the client goes away or time is over.

    Raises:
        ClientDisconnect: it went away.
        asyncio.TimeoutError: time is over.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect if gone.done() else asyncio.TimeoutError
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer_errors(app: FastAPI) -> None:
    """Answer whatever is wrong with one message, as JSON."""

    def answer(status: int, message: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": message}, status, headers)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return answer(error.status, error.message, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        known = ", ".join(Parameters.model_fields)
        faults = [
            f"there is no parameter {one['loc'][-1]!r}, only {known}"
            if one["type"] == "extra_forbidden"
            else f"{one['loc'][-1]}={one['input']!r}: {one['msg']}"
            for one in error.errors()
        ]
        return answer(400, "; ".join(faults))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        return answer(
            error.status_code,
            f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is",
            error.headers,
        )

    @app.exception_handler(ClientDisconnect)
    async def went_away(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=_GONE)

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        return answer(500, "the service failed; its log says why")
