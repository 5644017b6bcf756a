"""Score predicted label maps: a metric for mmengine's loops, and the evaluation of folders of PNG files."""

from danseg.evaluation.confusion import Scores
from danseg.evaluation.folders import evaluate_folders
from danseg.evaluation.metric import ExactIoUMetric

__all__ = ["ExactIoUMetric", "Scores", "evaluate_folders"]
