"""Trainings that are resumed, compared bit for bit with those that were not: a test, counted here."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from child_process import ROOT, environment
from outcome import Fault, Outcome, Place

MATRIX = ROOT / "tests" / "engine" / "test_resume_matrix.py"


def matrix(place: Place) -> Outcome:
    """Every case of the matrix: a try each."""
    report = place.folder / "report.xml"
    command = [sys.executable, "-m", "pytest", MATRIX, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=environment(CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        text=True,
        timeout=3600,
    )
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    if not cases:
        return Outcome("no case", [f"no case of the matrix ran: {done.stdout[-500:]}"])
    failed = [
        f"{case.get('name')} differs"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return Outcome("bit for bit", failed, tries=len(cases))


FAULTS = [Fault("stopped and resumed, the matrix", 1, matrix)]
