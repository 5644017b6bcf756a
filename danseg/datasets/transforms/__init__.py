"""Faster versions of mmseg's transforms for training, registered with mmseg."""

from danseg.datasets.transforms.fast_photo_metric_distortion import FastPhotoMetricDistortion
from danseg.datasets.transforms.load_training_crop import LoadTrainingCrop

__all__ = ["FastPhotoMetricDistortion", "LoadTrainingCrop"]
