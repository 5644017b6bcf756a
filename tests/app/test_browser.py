"""The page in a browser, end to end: what is sent, clicked, typed and dropped, and what is seen then."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from bad_files import BAD, drawn
from danseg.apis import explore
from danseg.app import PageLimits
from danseg.app.explorer import Explorer
from paged import paged

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: install it (apt-get install chromium)"),
]

LARGE = (150, 1600)  # which is shown reduced


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The visitors' pictures."""
    return tmp_path_factory.mktemp("private")


@pytest.fixture(scope="module")
def address(networks, pictures, folder) -> Iterator[str]:
    explorer = Explorer(networks, pictures, folder, PageLimits(bytes=4_000_000, pixels=4_000_000))
    with paged(explorer) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root, Chromium starts without its sandbox alone.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A visitor's page, with what it asked for and what went wrong on it."""

    def __init__(self, browser: Browser, address: str, query: str = "", **how: Any) -> None:
        self.context = browser.new_context(**how)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.goto(f"{address}/{query}")
        self.page.wait_for_selector("#chooser input[type=file]", state="attached")

    def send(self, name: str, content: bytes) -> None:
        self.page.set_input_files(
            "#chooser input[type=file]", dict(name=name, mimeType="image/png", buffer=content)
        )

    def opened(self) -> None:
        self.page.wait_for_selector("#labels-0 .danseg-mark:not([hidden])")
        expect(self.result).to_contain_text("at x =")

    @property
    def result(self) -> Any:
        return self.page.locator("#result")

    def heat(self, number: int = 0) -> str:
        return self.page.locator(f"#attention-{number} .danseg-heat").get_attribute("src")

    def click(self, x: float, y: float, viewer: str = "labels-0") -> None:
        """Click at a share of the width and the height of a picture."""
        frame = self.page.locator(f"#{viewer} .danseg-frame")
        box = frame.bounding_box()
        frame.click(position=dict(x=x * box["width"], y=y * box["height"]))

    def wait_for_another(self, heat: str, number: int = 0) -> None:
        self.page.wait_for_function(
            "([viewer, before]) => document.querySelector(`${viewer} .danseg-heat`).src !== before",
            arg=[f"#attention-{number}", heat],
        )


@pytest.fixture
def visit(browser, address) -> Iterator[Any]:
    """``visit(query, **context)``; no page may have asked another host, or have met an error."""
    made = []

    def start(query: str = "", **how: Any) -> Visit:
        made.append(Visit(browser, address, query, **how))
        return made[-1]

    yield start
    for one in made:
        hosts = {urlsplit(url).netloc for url in one.asked if not url.startswith(("data:", "blob:"))}
        assert hosts == {urlsplit(address).netloc} and one.errors == []
        one.context.close()


def test_a_picture_is_sent_clicked_and_compared(visit, networks, folder, tmp_path):
    mine = drawn(11, LARGE)
    page = visit(viewport=dict(width=1400, height=900))
    page.send("mine.png", mine)
    page.opened()
    first, second = page.heat(0), page.heat(1)
    assert first != second
    page.click(0.25, 0.75)
    page.wait_for_another(first, 0)
    page.wait_for_another(second, 1)
    x, y = (int(page.page.locator(f"#{one} input").input_value()) for one in "xy")
    assert abs(x - 400) <= 3 and abs(y - 112) <= 3  # of the full size, not of the shown one
    said = page.result.inner_text().splitlines()
    for network, line in zip(networks, (line for line in said if line), strict=True):
        exploration = explore(network.model, mine)
        name = exploration.classes[exploration.labels[y, x]]
        probabilities = sorted(exploration.probabilities((x, y)), reverse=True)[:3]
        assert line.startswith(f"{network.name}: {name} at x = {x}, y = {y}")
        assert all(f"{one:.1%}" in line for one in probabilities)
        share = f"{np.mean(exploration.labels == exploration.labels[y, x]):.1%}"
        number = networks.index(network)
        expect(page.page.locator(f"#legend-{number} li", has_text=name)).to_contain_text(share)
    page.page.screenshot(path=tmp_path / "wide.png", full_page=True)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 1400

    for name, begin in (("Figure (PNG)", b"\x89PNG"), ("Numbers (.npz)", b"PK")):
        with page.page.expect_download() as download:
            page.page.get_by_role("link", name=name).click()
        assert download.value.path().read_bytes().startswith(begin)

    assert len(list(folder.iterdir())) == 1
    page.page.goto("about:blank")  # leaves
    until = time.monotonic() + 10
    while list(folder.iterdir()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not list(folder.iterdir())


def test_keys_and_numbers_move_the_position(visit):
    page = visit("?picture=0&x=36&y=24")
    page.opened()
    frame = page.page.get_by_role("application", name="Classes, first: picture of 72 by 48 pixels")
    frame.focus()
    for keys, place in (
        (["ArrowRight"], "x = 37, y = 24"),
        (["ArrowUp", "ArrowUp", "Shift+ArrowLeft"], "x = 36, y = 22"),
        (["ArrowLeft"] * 40, "x = 0, y = 22"),
    ):
        for key in keys:
            frame.press(key)
        expect(page.result).to_contain_text(place)
    page.page.get_by_label("y", exact=True).fill("47")
    expect(page.result).to_contain_text("x = 0, y = 47")
    page.page.get_by_label("x", exact=True).fill("72")
    expect(page.page.get_by_role("alert").first).to_contain_text(
        "x must be a whole number from 0 to 71, got 72"
    )


def test_views_and_effects_are_chosen_and_a_link_restores_them(visit, networks, pictures):
    page = visit("?picture=2&x=10&y=20&view1=decode_head.cam&opacity=0.25")
    page.opened()
    exploration = explore(networks[0].model, str(pictures[2]))
    expect(page.result).to_contain_text(f"first: {exploration.classes[exploration.labels[20, 10]]} at x = 10")
    expect(page.page.locator("#attention-1 .danseg-bars tr")).to_have_count(8)
    assert page.page.get_by_label("Attention of").nth(1).input_value() == "decode_head.cam"
    assert page.page.get_by_label("Or one of the test set").input_value() == "2: bridge.png"
    opacity = "getComputedStyle(document.querySelector('#labels-0 .danseg-labels')).opacity"
    page.page.wait_for_function(f"{opacity} === '0.25'")

    page.page.get_by_label("Attention of").first.click()
    page.page.get_by_role("option", name="decode_head.cam").click()
    expect(page.page.locator("#attention-0 .danseg-bars tr")).to_have_count(8)
    page.page.wait_for_function("location.search.includes('view=decode_head.cam')")
    asked = {key: value for key, [value] in parse_qs(urlsplit(page.page.url).query).items()}
    views = dict(view="decode_head.cam", view1="decode_head.cam")
    assert asked == dict(picture="2", x="10", y="20", opacity="0.25", **views)
    again = visit(f"?{urlsplit(page.page.url).query}")
    again.opened()
    expect(again.page.locator("#attention-0 .danseg-bars tr")).to_have_count(8)
    assert again.result.inner_text() == page.result.inner_text()

    page.page.locator("#effect-0").click()
    effect = exploration.effect("decode_head.cam", [(10, 20)])
    expect(page.page.locator("#attention-0 figcaption")).to_contain_text(effect.summary())


def test_bad_files_get_a_message_and_a_good_one_takes_it_away(visit):
    page = visit()
    alert = page.page.get_by_role("alert").first
    for what in ("a text", "an empty file", "a truncated picture", "16 bits"):
        page.send("holiday.png", BAD[what][0])
        expect(alert).to_contain_text(re.compile(BAD[what][1]))
        page.errors.clear()  # Chromium logs every answer that is no 200
    page.send("large.png", bytes(4_000_001))
    expect(alert).to_contain_text("large.png has 4000001 bytes, more than 4000000; choose a smaller file")
    page.send("good.png", drawn(1))
    page.opened()
    expect(alert).to_be_hidden()


def test_two_visitors_see_their_own_pictures(visit):
    pages = [visit(), visit()]
    for number, page in enumerate(pages):
        page.send("x.png", drawn(20 + number))
        page.opened()
    legends = [page.page.locator("#legend-0").inner_text() for page in pages]
    assert legends[0] != legends[1]
    link = pages[0].page.url
    assert "picture=own" in link
    pages[1].page.goto(link)
    expect(pages[1].page.get_by_role("alert").first).to_contain_text("which is not kept; choose it again")


def test_hovering_names_the_class(visit, networks, pictures):
    page = visit("?picture=0", viewport=dict(width=1400, height=1400))
    page.opened()
    labels = explore(networks[0].model, str(pictures[0])).labels
    box = page.page.locator("#labels-0 .danseg-frame").bounding_box()
    for x, y in ((3, 3), (60, 40), (36, 20)):
        page.page.mouse.move(
            box["x"] + (x + 0.5) / 72 * box["width"], box["y"] + (y + 0.5) / 48 * box["height"]
        )
        expect(page.page.locator("#labels-0 .danseg-tip")).to_have_text(f"class {labels[y, x]}")
    page.page.mouse.move(0, 0)
    expect(page.page.locator("#labels-0 .danseg-tip")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(visit, tmp_path, scheme):
    page = visit(
        "?picture=1",
        viewport=dict(width=390, height=844),
        color_scheme=scheme,
        is_mobile=True,
        has_touch=True,
    )
    page.opened()
    page.page.screenshot(path=tmp_path / f"narrow_{scheme}.png", full_page=True)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    first = page.heat()
    frame = page.page.locator("#labels-0 .danseg-frame")
    frame.tap(position=dict(x=20, y=20))
    page.wait_for_another(first)
    ground = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, ground.strip("rgb()").split(",")[:3])) / 3
    assert brightness > 200 if scheme == "light" else brightness < 60


_NAMELESS = """() => {
  const named = (one) =>
    one.labels?.length || one.textContent.trim() || one.title || one.hasAttribute("alt") ||
    one.getAttribute("aria-label") || one.getAttribute("aria-labelledby");
  return [...document.querySelectorAll("input, select, textarea, button, [tabindex='0'], img, a")]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest("[aria-hidden=true]"))
    .filter((one) => !named(one)).map((one) => one.outerHTML.slice(0, 120));
}"""


def test_every_control_has_a_name(visit):
    page = visit("?picture=0")
    page.opened()
    nameless = page.page.evaluate(_NAMELESS)
    assert nameless == []
    live = page.page.locator("#result [role=status][aria-live=polite]")
    expect(live).to_contain_text("at x = ")
