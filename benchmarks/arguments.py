"""What command lines of benchmarks read. Nothing here imports torch, so a wrong line is told at once."""

import argparse
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def parse_size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` from a command line."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"a size is HEIGHTxWIDTH, for example 97x97, got {text!r}")
    return int(parts[0]), int(parts[1])
