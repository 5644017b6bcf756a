"""Put `danseg app` under load: visitors at a time on loopback, each with a picture of its own.

    python -m benchmarks.app_load                            # 20 visitors; a minute and 15 seconds
    python -m benchmarks.app_load --quick                    # 5 visitors, 3 seconds
    python -m benchmarks.app_load --markdown benchmarks/results/NAME.json

A visit goes as the page in a browser does: it keeps a connection that says that it is there, sends a picture,
opens it, clicks pixels, and leaves. Every answer has to be that of the visitor's own picture: the areas of
its classes, and the class and probabilities of each pixel, as exploring it directly gives them. Each visit
also asks for a picture of somebody else, whose name it should never know, and has to be refused. The page
runs in a process of its own; its resident memory is read every half second, and the last third of the time
may not need more than the first. At the end SIGTERM has to end it with status 0, and no file may be left. The
network is a small DANet with random weights: what is measured is the page.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import torch

from benchmarks import report
from benchmarks.arguments import RESULTS
from benchmarks.command import require_mmseg
from benchmarks.inference import settle
from benchmarks.networks import Network
from benchmarks.predict import configs
from danseg.engine.measuring import MIB, environment
from danseg.errors import UserError, command_line
from danseg.io.images import encode_image
from danseg.tool_arguments import parse_count

ROOT = Path(__file__).resolve().parents[1]
NETWORK = Network(18, width=8, recipe="camvid")
SIZE = (96, 144)
CLICKS = 8  # of a visit
KEPT = 64 * MIB  # of passes, so that the bound is reached within seconds
GROWTH, WARM_UP = 0.05, 15


@dataclass
class Visits:
    """What a page did under load.

    Attributes:
        visitors: how many there were at the same time.
        seconds: for how long, after ``warm_up`` seconds whose answers count, and whose memory does not.
        visits, clicks: how many were answered.
        wrong: what was answered otherwise than it has to be, one line each; at most ten are kept.
        foreign: answers that showed a picture of somebody else.
        latencies: seconds of a click: median, 95 of 100, longest.
        memory: resident bytes of the page's process, every half second.
        exit_status: of the process, after SIGTERM.
        left: files that it left behind.
    """

    visitors: int
    seconds: float
    warm_up: float = 0.0
    visits: int = 0
    clicks: int = 0
    wrong: list[str] = field(default_factory=list)
    foreign: int = 0
    latencies: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    exit_status: int | None = None
    left: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """The memory of the last third over that of the first, less 1."""
        third = max(1, len(self.memory) // 3)
        first, last = (statistics.median(part) for part in (self.memory[:third], self.memory[-third:]))
        return last / first - 1

    def verdicts(self) -> list[tuple[bool, str]]:
        """Whether each promise is kept, and its line."""
        parts = np.array_split(np.array(self.memory) / MIB, 3)
        thirds = ", ".join(f"{np.median(part):.0f}" for part in parts if len(part))
        return [
            (self.clicks > 0, f"{self.visits} visits and {self.clicks} clicks answered"),
            (not self.wrong, f"wrong answers: {'; '.join(self.wrong) or 'none'}"),
            (not self.foreign, f"{self.foreign} pictures of others were seen"),
            (
                self.growth <= GROWTH or not self.warm_up,
                f"memory: {self.growth:+.2%} from the first third to the last ({thirds} MiB)",
            ),
            (
                self.exit_status == 0 and not self.left,
                f"after SIGTERM it ended with status {self.exit_status}, and left: "
                f"{', '.join(self.left) or 'nothing'}",
            ),
        ]

    def lines(self) -> list[str]:
        """All of it, for people."""
        middle, most, longest = (1e3 * one for one in self.latencies)
        return [
            f"{self.visitors} visitors, {self.warm_up + self.seconds:.0f} s: a click took {middle:.0f} ms in "
            f"the middle, 95 of 100 at most {most:.0f}, all at most {longest:.0f}",
            *(f"{'kept' if kept else 'MISSED'}: {line}" for kept, line in self.verdicts()),
        ]


@dataclass(frozen=True)
class Own:
    """A visitor's picture, and what the page has to say of it."""

    content: bytes
    legend: str
    said: dict[tuple[int, int], str]


class Visitor:
    """Visits the page again and again with its picture."""

    def __init__(self, client: httpx.AsyncClient, own: Own, events: dict[str, int], load: Visits) -> None:
        self._client, self._own, self._events, self._load = client, own, events, load
        self.seconds: list[float] = []
        self.name = ""  # of the picture, while it is there

    async def visit(self, others: Sequence["Visitor"]) -> None:
        session = secrets.token_hex(8)
        here = asyncio.ensure_future(self._stay(session))
        try:
            sent = await self._client.post("/picture", content=self._own.content)
            self.name = sent.json()["picture"]
            opened = await self._event("open", session, self.name)
            # Areas come as the second of what each network has.
            if self._own.legend not in opened:
                self._wrong("open", opened)
            foreign = random.choice([one.name for one in others if one is not self] or ["nobody"])
            refused = await self._event("open", secrets.token_hex(8), foreign or "nobody")
            if any(isinstance(one, dict) and "image" in one for one in refused):
                self._load.foreign += 1
            for position in random.sample(sorted(self._own.said), CLICKS):
                start = time.perf_counter()
                answer = await self._event("look", session, *position, "decode_head.pam", None)
                self.seconds.append(time.perf_counter() - start)
                if answer[1] != self._own.said[position] or answer[0]:
                    self._wrong("look", answer)
                self._load.clicks += 1
            self._load.visits += 1
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self._wrong("visit", [repr(error)])
        finally:
            self.name = ""
            here.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await here

    async def _stay(self, session: str) -> None:
        with contextlib.suppress(httpx.HTTPError):
            async with self._client.stream("GET", f"/gradio_api/heartbeat/{session}") as answer:
                async for _ in answer.aiter_bytes():
                    pass

    async def _event(self, name: str, session: str, *data: Any) -> list[Any]:
        """What an event of the page brings."""
        body = dict(data=data, fn_index=self._events[name], session_hash=session)
        (await self._client.post("/gradio_api/queue/join", json=body)).raise_for_status()
        where = dict(params={"session_hash": session})
        async with self._client.stream("GET", "/gradio_api/queue/data", **where) as answer:
            async for line in answer.aiter_lines():
                said = json.loads(line[5:]) if line.startswith("data:") else {"msg": ""}
                if said["msg"] == "process_completed":
                    return said["output"].get("data") or [str(said)]
        raise ValueError(f"{name} did not end")

    def _wrong(self, what: str, answer: list[Any]) -> None:
        if len(self._load.wrong) < 10:
            self._load.wrong.append(f"{what}: {str(answer)[:120]}")


async def under_load(address: str, process: int, pictures: Sequence[Own], load: Visits) -> None:
    """Have all visitors visit until time is over."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        config = (await client.get("/config")).json()
        events = {one["api_name"]: one["id"] for one in config["dependencies"] if one["api_name"]}
        visitors = [Visitor(client, own, events, load) for own in pictures]
        until = time.monotonic() + load.warm_up + load.seconds

        async def again(one: Visitor) -> None:
            while time.monotonic() < until:
                await one.visit(visitors)

        watch = asyncio.ensure_future(_watch(process, load))
        await asyncio.gather(*map(again, visitors))
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
    seconds = [one for visitor in visitors for one in visitor.seconds] or [0.0]
    load.latencies = [float(one) for one in np.percentile(seconds, [50, 95, 100])]


async def _watch(process: int, load: Visits) -> None:
    await asyncio.sleep(load.warm_up)
    while True:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        load.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
        await asyncio.sleep(0.5)


@contextlib.contextmanager
def page(config: Path, weights: Path, load: Visits) -> Iterator[tuple[str, int]]:
    """A process of the page; gives its address and its number, and stops it by SIGTERM."""
    command = [sys.executable, str(ROOT / "tools" / "app.py"), str(config), str(weights), "--port", "0"]
    limits = ["--max-kept", str(KEPT), "--device", "cpu"]
    folder = config.parent / "temporary"
    folder.mkdir()
    process = subprocess.Popen(
        [*command, *limits],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
    )
    try:
        lines = (re.search(r"serving .* at (http://127\.0\.0\.1:\d+)", line) for line in process.stdout)
        found = next(filter(None, lines), None)
        if not found:
            raise UserError("the page does not start; what it says stands above")
        yield found[1], process.pid
        process.send_signal(signal.SIGTERM)
        load.exit_status = process.wait(60)
        load.left = [str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()]
    finally:
        process.kill()
        process.wait()


def drawn(model: Any, seed: int) -> Own:
    """A picture of one visitor, and what exploring it says."""
    from danseg.apis import explore
    from danseg.app.page_answers import classed, legend

    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    content = encode_image(image, ".png")
    exploration = explore(model, content)
    height, width = SIZE
    positions = [(x, y) for x in range(0, width, 17) for y in range(0, height, 13)]
    said = {position: f"<p>{classed(exploration, position)}</p>" for position in positions}
    return Own(content, legend(exploration), said)


def measure(visitors: int, seconds: float, warm_up: float) -> Visits:
    """Start a page, put it under load, stop it."""
    from danseg.apis import load_model
    from danseg.apis.preparation import ready_for_inference

    load = Visits(visitors, seconds, warm_up)
    _, config = configs(NETWORK)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        torch.manual_seed(0)
        model = settle(load_model(config, None, "cpu"))
        torch.save(dict(state_dict=model.state_dict(), meta={}), root / "weights.pth")
        config.dump(str(root / "network.py"))
        ready = ready_for_inference(load_model(config, root / "weights.pth", "cpu"), precision="float32")
        pictures = [drawn(ready, seed) for seed in range(visitors)]
        if len({own.legend for own in pictures}) < visitors:
            raise UserError("two visitors' pictures have equal areas, so that they could not be told apart")
        with page(root / "network.py", root / "weights.pth", load) as (address, process):
            asyncio.run(under_load(address, process, pictures, load))
    return load


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.app_load", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5 visitors, 3 seconds: a check, not a result")
    parser.add_argument("--visitors", type=parse_count, help="how many (default: 20, with --quick 5)")
    parser.add_argument("--seconds", type=parse_count, help="for how long (default: 60, with --quick 3)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to (default: %(default)s)")
    parser.add_argument(
        "--markdown", type=Path, metavar="JSON", help="print a stored result, measure nothing"
    )
    return parser.parse_args(argv)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the result; with status 1 if a promise is missed."""
    args = parse_args(argv)
    if args.markdown:
        print("\n".join(f"- {line}" for line in read(args.markdown).lines()))
        return
    require_mmseg()
    visitors = args.visitors or (5 if args.quick else 20)
    seconds, warm_up = (3, 0) if args.quick else (60, WARM_UP)
    load = measure(visitors, args.seconds or seconds, warm_up)
    print("\n".join(load.lines()))
    about = {**environment(torch.device("cpu")), **report.versions()}
    path = report.store("app_load", about, {"load": asdict(load)}, args.out, args.quick)
    print(f"wrote {path}")
    if not all(kept for kept, _ in load.verdicts()):
        sys.exit(1)


def read(path: Path) -> Visits:
    """A stored result."""
    try:
        return Visits(**json.loads(path.read_text(encoding="utf-8"))["load"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {path} as a result of a page ({error}); give a .json file that it wrote"
        ) from error


if __name__ == "__main__":
    main()
