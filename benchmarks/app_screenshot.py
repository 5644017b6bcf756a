"""Take the picture of the page that the docs show: docs/images/app.png.

    python -m benchmarks.app_screenshot danet_r18_demo work_dirs/danet_r18_demo/best.pth

Chromium opens the page of `danseg app` with a picture of the test set, at a position, and is pictured.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from danseg.errors import UserError, command_line, importing_extra

ROOT = Path(__file__).resolve().parents[1]
SIZE = dict(width=1280, height=960)


def take(networks: Sequence[str], query: str, out: Path, dark: bool = False) -> None:
    """Start a page, picture it, stop it.

    Args:
        networks: configs and checkpoints, as ``danseg app`` takes them.
        query: of the page's address: picture, x, y, view, opacity.
        out: the file.
        dark: in the dark look.
    """
    with importing_extra("test", "playwright"):
        from playwright.sync_api import sync_playwright
    chromium = shutil.which("chromium")
    if chromium is None:
        raise UserError("there is no chromium; install it (apt-get install chromium)")
    command = [sys.executable, str(ROOT / "tools" / "app.py"), *networks, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = (re.search(r"serving .* at (http://127\.0\.0\.1:\d+)", line) for line in process.stdout)
            found = next(filter(None, lines), None)
            if found is None:
                raise UserError("the page does not start; what it says stands above")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page(viewport=SIZE, color_scheme="dark" if dark else "light")
                page.goto(f"{found[1]}/?{query}")
                page.wait_for_selector("#attention-0 .danseg-caption:not(:empty)", timeout=120_000)
                page.wait_for_timeout(800)  # until all is painted
                page.screenshot(path=out, full_page=True)
                browser.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.app_screenshot", description=__doc__.split("\n")[0]
    )
    parser.add_argument("networks", nargs="+", help="as danseg app takes them")
    parser.add_argument(
        "--query",
        default="picture=2&x=300&y=150&opacity=0.6",
        help="what the page shows, as its links say it (default: %(default)s)",
    )
    parser.add_argument("--dark", action="store_true", help="in the dark look")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "images" / "app.png", help="(default: %(default)s)"
    )
    return parser.parse_args(argv)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Take it."""
    args = parse_args(argv)
    take(args.networks, args.query, args.out, args.dark)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
