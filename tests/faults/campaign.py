"""Faults on purpose: kill, fill, damage and stop danseg's tools, and count what survives.

    python tests/faults/campaign.py                     everything, which takes an hour or more
    python tests/faults/campaign.py --only kills --tries 10
    python tests/faults/campaign.py --only "mutated inputs" --number 17 --folder /tmp/look

prints one table (fault, tries, survived, lost iterations) and writes it as JSON to benchmarks/results. A
trial is drawn from --seed, the fault's name and the trial's number alone: one which failed can be repeated.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


def parse_arguments() -> argparse.Namespace:
    from benchmarks.arguments import RESULTS
    from danseg.tool_arguments import parse_count

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="faults whose name contains NAME")
    parser.add_argument("--tries", type=parse_count, help="trials of each fault (default: the fault's own)")
    parser.add_argument("--number", type=int, action="append", help="only the trial of this number")
    parser.add_argument("--seconds", type=float, help="start no trial after so many seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=parse_count, default=1, help="trials at a time (default: 1)")
    parser.add_argument("--folder", type=Path, help="work here, and keep the folders of trials that fail")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder for the JSON (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from carrying_out import carry_out

    sys.exit(carry_out(args))


if __name__ == "__main__":
    main()
