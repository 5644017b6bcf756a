"""The page's addresses: what Gradio needs and nothing else of it, uploads, downloads."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.routing import Mount

from danseg.app.explorer import Explorer
from danseg.app.gradio_page import GradioPage, asset
from danseg.app.page_downloads import figure_png, numbers_npz
from danseg.errors import UserError
from danseg.web.request_limits import RefusedError
from danseg.web.uploads import counted

# What the page asks of Gradio, by how the path begins. It has more: uploads, files, proxies, recordings.
_GRADIO = (
    "/assets/",
    "/static/",
    "/svelte/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/gradio_api/info",
    "/gradio_api/queue/",
    "/gradio_api/heartbeat/",
    "/gradio_api/startup-events",
    "/gradio_api/app_id",
)
_OWN = ("/", "/picture", "/figure.png", "/numbers.npz")
_MOST = 2**16  # bytes of an event
# Nothing is loaded from elsewhere. Gradio's components are made of templates, which become functions.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"referrer-policy": b"no-referrer",  # addresses of downloads hold a picture's secret name
    b"x-content-type-options": b"nosniff",
}


def page_application(explorer: Explorer) -> FastAPI:
    """The page as an ASGI application; it closes the explorer."""
    page = GradioPage(explorer)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ending = asyncio.ensure_future(_end_heartbeats(explorer, page.blocks))
        try:
            yield
        finally:
            ending.cancel()
            explorer.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(OnlyThePage)

    @app.post("/picture")
    async def picture(request: Request) -> Response:
        return JSONResponse({"picture": await explorer.add(counted(request, explorer.limits.bytes))})

    @app.get("/figure.png")
    async def figure(request: Request) -> Response:
        return await _download(explorer, request, figure_png, "image/png")

    @app.get("/numbers.npz")
    async def numbers(request: Request) -> Response:
        return await _download(explorer, request, numbers_npz, "application/octet-stream")

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return JSONResponse({"error": error.message}, error.status, error.headers)

    @app.exception_handler(UserError)
    async def wrong(_: Request, error: UserError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    page.blocks.queue(max_size=None, api_open=False)
    page.blocks.state_session_capacity = 64
    app = gr.mount_gradio_app(
        app,
        page.blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        show_error=False,
        theme=gr.themes.Default(font=["Arial", "sans-serif"], font_mono=["monospace"]),
        css=asset("page.css"),
    )
    # The one that listens; leaving the block of the page's parts has made another, which does not.
    page.blocks.app = next(route.app for route in app.routes if isinstance(route, Mount))
    return app


async def _download(explorer: Explorer, request: Request, make: Any, kind: str) -> Response:
    asked = dict(request.query_params)
    picture = asked.get("picture", "")
    names = [one.name for one in explorer.networks]
    content = await explorer.ask(picture, None, lambda explorations: make(explorations, names, asked))
    return Response(content, media_type=kind, headers={"Cache-Control": "no-store"})


async def _end_heartbeats(explorer: Explorer, blocks: gr.Blocks) -> None:
    """End the connections that every open page holds, once all is answered that was accepted."""
    while not explorer.stopped:
        await asyncio.sleep(0.05)
    blocks.app.stop_event.set()


class OnlyThePage:
    """ASGI middleware that answers with 404 what the page does not ask, and bounds what it asks.

    Events are small, and name no files: Gradio would fetch a file that is named by an address.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path not in _OWN and not path.startswith(_GRADIO):
            await JSONResponse({"error": f"there is no {path}"}, 404)(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS.items()]
            await send(message)

        if scope["method"] != "POST" or path == "/picture":
            await self._app(scope, receive, with_headers)
            return
        try:
            body = b"".join([piece async for piece in counted(Request(scope, receive), _MOST)])
            if "gradio.FileData" in _texts(json.loads(body)):
                raise RefusedError(400, "events of this page name no files")
        except (RefusedError, ValueError) as error:
            status = error.status if isinstance(error, RefusedError) else 400
            await JSONResponse({"error": str(error)}, status)(scope, receive, send)
            return
        pieces = iter([dict(type="http.request", body=body, more_body=False)])

        async def again() -> Any:
            return next(pieces, None) or await receive()

        await self._app(scope, again, with_headers)


def _texts(value: Any) -> set[str]:
    """All texts in the values of a JSON document."""
    if isinstance(value, str):
        return {value}
    inner: Iterable[Any] = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return {text for one in inner for text in _texts(one)}
