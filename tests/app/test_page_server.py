"""The page's addresses: what is sent and handed out, and that nothing else of Gradio is there."""

import inspect
import json
import re
import secrets
from collections.abc import Iterator

import gradio.routes
import httpx
import pytest

from bad_files import BAD, drawn
from danseg.app import PageLimits
from danseg.app.explorer import Explorer
from paged import paged


@pytest.fixture(scope="module")
def client(networks, pictures, tmp_path_factory) -> Iterator[httpx.Client]:
    """A client of a page of two networks with small limits."""
    limits = PageLimits(bytes=200_000, pixels=1_000_000)
    explorer = Explorer(networks, pictures, tmp_path_factory.mktemp("private"), limits)
    with paged(explorer) as address, httpx.Client(base_url=address, timeout=20) as client:
        yield client


def event(client: httpx.Client, name: str, session: str, *data) -> list:
    """What an event of the page brings."""
    config = client.get("/config").json()
    [number] = [one["id"] for one in config["dependencies"] if one["api_name"] == name]
    body = dict(data=list(data), fn_index=number, session_hash=session)
    client.post("/gradio_api/queue/join", json=body).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:") and (said := json.loads(line[5:]))["msg"] == "process_completed":
                assert said["success"], said
                return said["output"]["data"]
    raise AssertionError("the event did not end")


def test_a_picture_is_sent_opened_asked_and_taken_along(client):
    name = client.post("/picture", content=drawn(3)).json()["picture"]
    session = secrets.token_hex(8)
    message, result, links, x, y, *_ = event(client, "open", session, name)
    assert message == "" and "first: <strong>" in result and "second: <strong>" in result
    assert (
        links["own"]
        and name in links["download"]
        and name not in links["view"]
        and "picture=own" in links["view"]
    )
    choices = ["decode_head.cam", None, "decode_head.pam", None]
    message, result, links, x, y, *_ = event(client, "look", session, 5, 40, *choices)
    assert (message, x, y) == ("", 5, 40) and "at x = 5, y = 40" in result
    numbers = client.get(f"/numbers.npz?{links['download']}")
    assert numbers.status_code == 200 and numbers.content[:2] == b"PK"
    assert numbers.headers["Cache-Control"] == "no-store"
    figure = client.get(f"/figure.png?{links['download']}")
    assert figure.status_code == 200 and figure.content[:4] == b"\x89PNG"


def test_another_session_does_not_get_it(client):
    name = client.post("/picture", content=drawn(3)).json()["picture"]
    assert event(client, "open", "the owner", name)[0] == ""
    assert event(client, "open", "another", name)[0] == "this picture is not kept any more; choose it again"
    assert event(client, "look", "another", 5, 40, *[None] * 4)[0] == "choose a picture first"


def test_a_session_goes_on_after_many_others(client):
    """Gradio forgets sessions, with the choices that their parts have."""
    event(client, "open", "first of many", "1")
    for number in range(66):
        event(client, "look", f"one of many {number}", 0, 0, *[None] * 4)
    choices = ["decode_head.cam", None, "decode_head.pam", None]
    assert event(client, "look", "first of many", 3, 4, *choices)[:1] == [""]


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_gets_one_message(client, what):
    content, message = BAD[what]
    sent = client.post("/picture", content=content)
    if sent.status_code == 200:
        said = event(client, "open", what, sent.json()["picture"])[0]
    else:
        assert 400 <= sent.status_code < 500 and list(sent.json()) == ["error"]
        said = sent.json()["error"]
    assert re.search(message, said)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((500, 0), "x must be a whole number from 0 to 71, got 500"),
        ((None, 0), "x must be a whole number"),
        ((0, 0, "<b>"), "there is no view &#x27;&lt;b&gt;&#x27;"),
    ],
)
def test_a_wrong_question_gets_one_message(client, data, message):
    event(client, "open", "mine", "0")
    x, y, *view = data
    said = event(client, "look", "mine", x, y, *(view or ["decode_head.pam"]), None, "decode_head.pam", None)
    assert said[0].startswith(message)


ASKED = (
    "/assets/",
    "/static/",
    "/svelte/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
) + tuple(f"/gradio_api/{one}" for one in ("info", "queue/", "heartbeat/", "startup-events", "app_id"))


def test_nothing_else_of_gradio_answers(client):
    """Of all routes that the installed Gradio has."""
    found = re.findall(r'@(app|router)\.\w+\(\s*"(/[^"]+)"', inspect.getsource(gradio.routes))
    paths = {("/gradio_api" if of == "router" else "") + path for of, path in found}
    others = {re.sub(r"\{[^}]*\}", "x", path) for path in paths if not path.startswith(ASKED)}
    assert len(others) > 30 and {"/gradio_api/upload", "/gradio_api/file=x", "/login"} < others
    for path in others:
        for method in ("GET", "POST"):
            answer = client.request(method, path)
            assert answer.status_code == 404 and answer.json() == {"error": f"there is no {path}"}


def test_events_name_no_files_and_are_small(client):
    join = "/gradio_api/queue/join"
    file = {"path": "https://example.org/x.png", "meta": {"_type": "gradio.FileData"}}
    for body, status in (
        (dict(data=[[file]], fn_index=0, session_hash="x"), 400),
        (dict(data=["x" * 70_000], fn_index=0, session_hash="x"), 413),
    ):
        assert client.post(join, json=body).status_code == status
    escaped = json.dumps(dict(data=[file], fn_index=0, session_hash="x")).replace("gradio.", "gradio\\u002e")
    assert client.post(join, content=escaped).status_code == 400
    assert client.post(join, content=b"{").status_code == 400


def test_no_answer_lets_a_browser_ask_elsewhere(client):
    for path in ("/", "/config", "/theme.css"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy


def test_a_picture_of_somebody_else_cannot_be_taken_along(client):
    for path in ("figure.png", "numbers.npz"):
        answer = client.get(f"/{path}?picture=guessed&x=0&y=0&view=decode_head.pam")
        assert answer.status_code == 404 and "choose it again" in answer.json()["error"]
    assert client.get("/numbers.npz?picture=0&x=0&y=0&view=other").status_code == 422
