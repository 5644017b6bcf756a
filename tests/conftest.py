"""Settings and fixtures that every test shares."""

import os

# Before torch is imported. Tiny networks gain nothing from more, and threads stall on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

# Before any test file imports mmseg: on its original line that needs danseg's stand-in for mmcv.ops.
import danseg  # noqa: F401

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def rendered_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A rendered Cityscapes tree: 6 training and 5 validation frames of 64 x 128. Do not write to it."""
    from danseg.datasets.rendered import render

    root = tmp_path_factory.mktemp("rendered") / "cityscapes"
    render(root, train=6, val=5, height=64, width=128)
    return str(root)


@pytest.fixture(scope="session")
def official_scores() -> Callable[[Path, Path], dict]:
    """What cityscapesscripts computes from a folder of predictions and one of labels."""
    import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as official

    def scores(predictions: Path, labels: Path) -> dict:
        arguments = official.CArgs()
        arguments.__dict__.update(vars(official.args))
        arguments.predictionPath, arguments.predictionWalk = str(predictions), None
        arguments.evalInstLevelScore = arguments.JSONOutput = False
        arguments.quiet = True
        label_files = [str(path) for path in sorted(labels.rglob("*_gtFine_labelIds.png"))]
        prediction_files = [official.getPrediction(arguments, file) for file in label_files]
        return official.evaluateImgLists(prediction_files, label_files, arguments)

    return scores
