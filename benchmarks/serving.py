"""Put `danseg serve` under load: many clients at a time on loopback, bad uploads among their pictures.

    python -m benchmarks.serving                            # 200 clients; a minute and 25 seconds
    python -m benchmarks.serving --quick                    # 20 clients, 3 seconds
    python -m benchmarks.serving --markdown benchmarks/results/NAME.json

Each client keeps a connection and sends one request after the other: labels, areas, and every tenth time
something bad. Every request has to be answered: a picture by 200 and the labels that predicting it directly
gives, anything bad by a 4xx and a message. The service runs in a process of its own; its resident memory is
read every half second, and the last third of the time may not need more than the first, once the libraries
have got to know the sizes of pictures and batches in the ten seconds before. At the end SIGTERM has to end it
with status 0. The network is a small DANet with random weights: what is measured is the service.
"""

import argparse
import asyncio
import contextlib
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks import report
from benchmarks.arguments import RESULTS
from benchmarks.command import require_mmseg
from benchmarks.inference import settle
from benchmarks.networks import Network
from benchmarks.predict import configs
from benchmarks.serving_requests import LARGEST, Asked, bad_requests, differing, draw_pictures, good_requests
from danseg.engine.measuring import MIB, environment
from danseg.errors import UserError, command_line
from danseg.tool_arguments import parse_count

ROOT = Path(__file__).resolve().parents[1]
NETWORK = Network(18, width=8, recipe="camvid")
# In a batch the last bits of a sum change, which may decide between two classes that nearly tie.
TIES = 1e-3
# The share by which the memory of the last third of a run may be above that of the first. oneDNN keeps what
# it prepares for each size of pictures and batches, up to a number; that happens in the seconds before.
GROWTH, WARM_UP = 0.05, 10
BAD_SHARE = 10  # one request of so many is bad


@dataclass
class Load:
    """What a service did under load.

    Attributes:
        clients: how many asked at the same time.
        seconds: for how long, after ``warm_up`` seconds whose answers count, and whose memory does not.
        answers: how many of each status, by what was asked.
        wrong: what was answered otherwise than it has to be, one line each; at most ten are kept.
        lost: requests without an answer.
        differing: the largest share of pixels of a picture with another label than directly predicted.
        latencies: seconds of the requests for pictures: median, 95 and 99 of 100, longest.
        batch: pictures that went through the network together, on average.
        memory: resident bytes of the service, every half second.
        exit_status: of the service, after SIGTERM.
    """

    clients: int
    seconds: float
    warm_up: float = 0.0
    answers: dict[str, dict[str, int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    differing: float = 0.0
    latencies: list[float] = field(default_factory=list)
    batch: float = 0.0
    memory: list[int] = field(default_factory=list)
    exit_status: int | None = None

    @property
    def answered(self) -> int:
        return sum(count for of_kind in self.answers.values() for count in of_kind.values())

    @property
    def growth(self) -> float:
        """The memory of the last third over that of the first, less 1."""
        third = max(1, len(self.memory) // 3)
        first, last = (statistics.median(part) for part in (self.memory[:third], self.memory[-third:]))
        return last / first - 1

    def verdicts(self) -> list[tuple[bool, str]]:
        """Whether each promise is kept, and its line."""
        memory = [one / MIB for one in self.memory]
        bad = sum(sum(of.values()) for what, of in self.answers.items() if what not in ("labels", "areas"))
        return [
            (not self.lost, f"{self.answered} requests answered, {self.lost} lost"),
            (not self.wrong, f"wrong answers: {'; '.join(self.wrong) or 'none'}"),
            (bad > 0, f"{bad} bad uploads answered with 4xx and a message"),
            (
                self.differing <= TIES,
                f"labels differ from direct prediction in {self.differing:.2g} of a picture",
            ),
            (
                self.growth <= GROWTH or not self.warm_up,
                f"memory: {self.growth:+.2%} from the first third to the last "
                f"({min(memory):.0f} to {max(memory):.0f} MiB)",
            ),
            (self.exit_status == 0, f"after SIGTERM it ended with status {self.exit_status}"),
        ]

    def lines(self) -> list[str]:
        """All of it, for people."""
        whole = self.warm_up + self.seconds
        middle, most, nearly, longest = (1e3 * one for one in self.latencies)
        return [
            f"{self.clients} clients, {whole:.0f} s: {self.answered / whole:.0f} requests a second, "
            f"{self.batch:.1f} pictures a batch; a picture took {middle:.0f} ms in the middle, 95 of 100 at "
            f"most {most:.0f}, 99 at most {nearly:.0f}, all at most {longest:.0f}",
            *(f"{'kept' if kept else 'MISSED'}: {line}" for kept, line in self.verdicts()),
        ]


class Clients:
    """Clients that ask for a time, and look at what they get."""

    def __init__(self, port: int, good: Sequence[Asked], bad: Sequence[Asked], load: Load) -> None:
        self._port, self._good, self._bad, self._load = port, good, bad, load
        self._seconds: list[float] = []
        self._seen: dict[tuple[int, bytes], float] = {}  # differing shares of answers that were looked at
        self._answers: dict[str, Counter[str]] = {}

    async def carry_out(self) -> None:
        until = time.monotonic() + self._load.warm_up + self._load.seconds
        watch = asyncio.ensure_future(self._watch())
        await asyncio.gather(*(self._client(number, until) for number in range(self._load.clients)))
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        ranks = np.percentile(self._seconds or [0.0], [50, 95, 99, 100])
        self._load.latencies = [float(one) for one in ranks]
        self._load.answers = {what: dict(counts) for what, counts in sorted(self._answers.items())}
        text = (await self._get("/metrics")).decode()
        count, total = (
            float(re.search(rf"danseg_batch_size_{of} (\S+)", text)[1]) for of in ("count", "sum")
        )
        self._load.batch = total / count

    async def _client(self, number: int, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        turn = number
        while time.monotonic() < until:
            is_bad = turn % BAD_SHARE == 0
            chosen = self._bad if is_bad else self._good
            asked = chosen[(turn // BAD_SHARE if is_bad else turn) % len(chosen)]
            turn += 1
            start = time.perf_counter()
            try:
                status, body = await _exchange(reader, writer, asked.content)
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                self._load.lost += 1
                self._note(f"{asked.what}: no answer ({error!r})")
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                continue
            if not asked.bad:
                self._seconds.append(time.perf_counter() - start)
            self._answers.setdefault(asked.what, Counter())[str(status)] += 1
            self._look(asked, status, body)
        writer.close()

    def _look(self, asked: Asked, status: int, body: bytes) -> None:
        if asked.bad:
            if not 400 <= status < 500 or list(json.loads(body)) != ["error"]:
                self._note(f"{asked.what}: {status} {body[:80]!r}")
        elif status != 200:
            self._note(f"{asked.what}: {status} {body[:80]!r}")
        else:
            key = (id(asked), body)
            if key not in self._seen:
                self._seen[key] = differing(asked, body)
            self._load.differing = max(self._load.differing, self._seen[key])

    def _note(self, line: str) -> None:
        if len(self._load.wrong) < 10:
            self._load.wrong.append(line)

    async def _watch(self) -> None:
        await asyncio.sleep(self._load.warm_up)
        while True:
            text = (await self._get("/metrics")).decode()
            self._load.memory.append(
                int(float(re.search(r"^process_resident_memory_bytes (\S+)", text, re.M)[1]))
            )
            await asyncio.sleep(0.5)

    async def _get(self, path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        _, body = await _exchange(reader, writer, f"GET {path} HTTP/1.1\r\nHost: loopback\r\n\r\n".encode())
        writer.close()
        return body


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes
) -> tuple[int, bytes]:
    """Send a request, and read the status and the body of its answer."""
    writer.write(content)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = re.search(r"^content-length: (\d+)", head, re.MULTILINE)
    return int(head.split(" ", 2)[1]), await reader.readexactly(int(length[1]) if length else 0)


@contextlib.contextmanager
def service(config: Path, weights: Path, load: Load, device: str) -> Iterator[int]:
    """A process of the service; gives its port, and stops it by SIGTERM."""
    command = [sys.executable, str(ROOT / "tools" / "serve.py"), str(config), str(weights), "--port", "0"]
    limits = ["--queue", str(2 * load.clients), "--max-bytes", str(LARGEST), "--device", device]
    process = subprocess.Popen([*command, *limits], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r"http://127\.0\.0\.1:(\d+) ", process.stdout.readline())
        if not found:
            raise UserError("the service does not start; what it says stands above")
        yield int(found[1])
        process.send_signal(signal.SIGTERM)
        load.exit_status = process.wait(60)
    finally:
        process.kill()
        process.wait()


def measure(clients: int, seconds: float, warm_up: float, device: str) -> Load:
    """Start a service, put it under load, stop it."""
    from danseg.apis import load_model, prepare_for_inference

    load = Load(clients, seconds, warm_up)
    _, config = configs(NETWORK)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        torch.manual_seed(0)
        model = settle(load_model(config, None, "cpu"))
        torch.save(dict(state_dict=model.state_dict(), meta={}), root / "weights.pth")
        config.dump(str(root / "network.py"))
        pictures = draw_pictures()
        good = good_requests(prepare_for_inference(model.to(device)), pictures)
        bad = bad_requests(pictures[0])
        with service(root / "network.py", root / "weights.pth", load, device) as port:
            asyncio.run(Clients(port, good, bad, load).carry_out())
    return load


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 clients, 3 seconds: a check, not a result")
    parser.add_argument("--clients", type=parse_count, help="how many (default: 200, with --quick 20)")
    parser.add_argument("--seconds", type=parse_count, help="for how long (default: 60, with --quick 3)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(default: %(default)s)")
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
    clients = args.clients or (20 if args.quick else 200)
    seconds, warm_up = (3, 0) if args.quick else (60, WARM_UP)
    load = measure(clients, args.seconds or seconds, warm_up, args.device)
    print("\n".join(load.lines()))
    about = {**environment(torch.device(args.device)), **report.versions()}
    path = report.store("serving", about, {"load": asdict(load)}, args.out, args.quick)
    print(f"wrote {path}")
    if not all(kept for kept, _ in load.verdicts()):
        sys.exit(1)


def read(path: Path) -> Load:
    """A stored result."""
    try:
        return Load(**json.loads(path.read_text(encoding="utf-8"))["load"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {path} as a result of serving ({error}); give a .json file that it wrote"
        ) from error


if __name__ == "__main__":
    main()
