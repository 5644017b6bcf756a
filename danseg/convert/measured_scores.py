"""The scores of a checkpoint, from the file of a test or from the record of its training's validations."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danseg.engine.validation_record import RECORD, read_record
from danseg.errors import UserError, reason_of
from danseg.io.source_files import read_file

_NOT_SCORES = {"config", "checkpoint", "iteration", "sets"}  # where files lie, and names of others' sets


def measured_scores(
    checkpoint: str | Path, content: Mapping[str, Any], metrics: str | Path | None
) -> dict[str, Any] | None:
    """The scores of a checkpoint in percent, of the means and perhaps of every class; None if none are known.

    Args:
        checkpoint: its file.
        content: what it holds.
        metrics: a file that ``tools/test.py`` wrote. Default: ``validations.json`` beside the checkpoint.

    Raises:
        UserError: the file cannot be read, is none of a test, or is of another checkpoint.
    """
    if metrics is not None:
        return {"measured": "test", **_scores(_read(Path(metrics), checkpoint))}
    iteration = (content.get("meta") or {}).get("iter")
    found = [one for one in read_record(Path(checkpoint).parent) if one["iteration"] == iteration]
    return {"measured": "validation", **_scores(found[-1])} if found else None


def _scores(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in _NOT_SCORES}


def _read(path: Path, checkpoint: str | Path) -> dict[str, Any]:
    try:
        report = json.loads(read_file(path))
    except OSError as error:
        raise UserError(f"--metrics {path} cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"--metrics {path} is no JSON ({error}); name what tools/test.py wrote") from error
    if not isinstance(report, dict) or not isinstance(report.get("checkpoint"), str) or "mIoU" not in report:
        raise UserError(
            f"--metrics {path} has no checkpoint and mIoU; name the metrics_*.json that tools/test.py wrote "
            f"(scores of a training are in {RECORD}, and found beside its checkpoints)"
        )
    if Path(report["checkpoint"]).name != Path(checkpoint).name:
        raise UserError(
            f"--metrics {path} has the scores of {Path(report['checkpoint']).name}, not of "
            f"{Path(checkpoint).name}: test that, and name its file"
        )
    return report
