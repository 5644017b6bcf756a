"""Put a campaign's figures into docs/reliability.md, beside what the stock stack does.

    python tests/faults/reliability_table.py [JSON]

takes the newest result of a whole campaign in benchmarks/results, or the given one.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
COLUMNS = ("fault", "the stock stack", "tries", "survived", "lost iterations", "hung", "internal stacks")

_DIES = "dies, all is lost with one checkpoint kept (me/fileio/backends/local_backend.py:77)"
# What mmengine and mmseg do by themselves. me is mmengine.
STOCK = {
    "kill -9, one process": f"{_DIES}, best and last untrue (me/hooks/checkpoint_hook.py)",
    "kill -9, two processes": "cannot start on a CPU (me/dist/utils.py:130, me/runner/runner.py:901, :882)",
    "kill -9 at each file operation": _DIES,
    "kill -9 in the middle of a file": _DIES,
    "stopped and resumed, the matrix": "66 of 71 tensors differ",
    "SIGTERM": "nothing saved",
    "SIGINT": "nothing saved",
    "full disk in training": _DIES,
    "full disk in other tools": "–",
    "file size limit in training": _DIES,
    "mutated inputs": "late, nameless or silent; flipped bits of a checkpoint are accepted",
    "code in files": "runs (me/runner/checkpoint.py:85, me/runner/runner.py:2034), from YAML configs too",
    "two trainings in one folder": "mix their files",
    "two processes, no fault": "cannot start on a CPU",
    "stopped data worker": "hangs for ever",
    "stopped rank": "waits 30 minutes",
    "killed rank": "ends in about 1 s, with status 1",
}


def newest() -> Path | None:
    """The newest result of a whole campaign."""
    found = (ROOT / "benchmarks" / "results").glob("faults_*.json")
    whole = [path for path in found if not path.stem.endswith("_part")]
    return max(whole, key=lambda path: path.stat().st_mtime, default=None)


def rendered(result: dict[str, Any] | None) -> str:
    """The table, and below it all that did not survive; without a result the table's stock column alone."""
    rows = {row["fault"]: row for row in result["rows"]} if result else {}
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * 5]
    lines += ["| " + " | ".join((fault, STOCK[fault], *_counts(rows.get(fault)))) + " |" for fault in STOCK]
    if result is None:
        return "\n".join([*lines, "", "TO BE MEASURED: no whole campaign has been recorded.", ""])
    about = result["about"]
    lines += [
        "",
        f"torch {about['torch']}, mmseg {about.get('mmseg')}, {about['device_name']}, seed {about['seed']}.",
    ]
    wrong = [f"- {fault}, {one}" for fault, row in rows.items() for one in row["wrong"]]
    if wrong:
        lines += ["", "What did not survive, by the number of its trial:", "", *wrong]
    return "\n".join([*lines, ""])


def _counts(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return ["–"] * 5
    kinds = [sum(kind in one for one in row["wrong"]) for kind in ("hang", "internal stack")]
    return [f"{number:,}" for number in (row["tries"], row["survived"], row["lost"], *kinds)]


def with_figures(page: str, result: dict[str, Any] | None) -> str:
    """The page with the table of ``result`` in its place."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + rendered(result) + END + rest.split(END)[1]


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else newest()
    result = json.loads(path.read_text(encoding="utf-8")) if path else None
    PAGE.write_text(with_figures(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
    print(f"written: {PAGE}, from {path or 'no result'}")


if __name__ == "__main__":
    main()
