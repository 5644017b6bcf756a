"""An error names the sample that fails during a run."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from danseg.engine.failing_samples import UnusableSample, name_failing_samples


class Failing(Dataset):
    """Two samples, the second of which cannot be prepared."""

    def __init__(self, error=None, label="b.png"):
        self.error = error or ValueError("broken\nin two lines")
        self.label = label

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.prepare_data(index)

    def prepare_data(self, index):
        if index == 1:
            raise self.error
        return torch.zeros(1)

    def get_data_info(self, index):
        return dict(img_path=f"{index}.jpg", seg_map_path=self.label)


class Wrapper(Dataset):
    """A data set around another, as mmengine's RepeatDataset."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, index):
        return self.dataset[index]


@pytest.mark.parametrize("around", [lambda one: one, Wrapper, lambda one: ConcatDataset([one])])
def test_image_label_and_reason_are_named(around):
    dataset = around(Failing())
    name_failing_samples(dataset)
    assert dataset[0] == 0
    with pytest.raises(UnusableSample) as caught:
        dataset[1]
    assert str(caught.value) == "image 1.jpg with label b.png cannot be used: ValueError: broken"


def test_without_a_label_the_image_alone_is_named():
    dataset = Failing(label=None)
    name_failing_samples(dataset)
    with pytest.raises(UnusableSample, match=r"^image 1\.jpg cannot be used"):
        dataset[1]


def test_a_lack_of_memory_is_no_fault_of_the_sample():
    dataset = Failing(error=MemoryError())
    name_failing_samples(dataset)
    with pytest.raises(MemoryError):
        dataset[1]


def test_the_message_comes_whole_out_of_a_worker():
    dataset = Failing()
    name_failing_samples(dataset)
    with pytest.raises(UnusableSample) as caught:
        list(DataLoader(dataset, num_workers=1, multiprocessing_context="fork"))
    assert str(caught.value) == "image 1.jpg with label b.png cannot be used: ValueError: broken"


class Panic(BaseException):
    """As a panic of a library written in Rust reaches Python."""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_panic_names_the_sample_too(workers):
    dataset = Failing(error=Panic("overflow"))
    name_failing_samples(dataset)
    with pytest.raises(
        UnusableSample, match=r"^image 1\.jpg with label b\.png cannot be used: Panic: overflow$"
    ):
        list(DataLoader(dataset, num_workers=workers, multiprocessing_context="fork" if workers else None))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_a_program_is_no_fault_of_the_sample(error):
    dataset = Failing(error=error())
    name_failing_samples(dataset)
    with pytest.raises(error):
        dataset[1]


def claim(data: bytes, height: int, width: int) -> bytes:
    """A PNG whose header, with the right checksum, promises another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def png(ids: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, "PNG")
    return buffer.getvalue()


CHANGES = {
    "cut": lambda data: data[: len(data) // 2],
    "another size": lambda data: png(np.zeros((32, 64), np.uint8)),
    "other ids": lambda data: png(np.full((32, 48), 77, np.uint8)),
    "a huge size": lambda data: claim(data, 2**31 - 1, 2**31 - 1),
    "more rows": lambda data: claim(data, 64, 48),
}
LOADS = {
    "danseg": [dict(type="LoadTrainingCrop", scale=(48, 32), crop_size=(32, 48), cat_max_ratio=1)],
    "mmseg": [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
}


@pytest.mark.parametrize(
    ("way", "change"),
    [*(("danseg", change) for change in CHANGES), ("mmseg", "cut"), ("mmseg", "other ids")],
)
def test_a_label_that_changed_since_its_check_is_named(tmp_path, change, way):
    image, label = tmp_path / "images" / "a.png", tmp_path / "labels" / "a.png"
    for path, pixels in ((image, np.zeros((32, 48, 3), np.uint8)), (label, np.zeros((32, 48), np.uint8))):
        path.parent.mkdir()
        path.write_bytes(png(pixels))
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = DATASETS.build(
            dict(
                type="BaseSegDataset",
                data_root=str(tmp_path),
                data_prefix=dict(img_path="images", seg_map_path="labels"),
                img_suffix=".png",
                metainfo=dict(classes=("land", "water")),
                pipeline=[*LOADS[way], dict(type="PackSegInputs")],
            )
        )
    name_failing_samples(dataset)
    assert dataset[0]["data_samples"].gt_sem_seg.data.max() == 0
    label.write_bytes(CHANGES[change](label.read_bytes()))
    with pytest.raises(UnusableSample) as caught:
        dataset[0]
    assert f"image {image} with label {label} cannot be used: " in str(caught.value)
    assert change != "other ids" or "its label has the ids 77" in str(caught.value)


def test_what_is_no_file_is_never_opened(tmp_path):
    dataset = Failing()
    dataset.get_data_info = lambda index: dict(img_path=str(tmp_path / "a.png"))
    dataset.prepare_data = lambda index: (tmp_path / "a.png").read_bytes()
    os.mkfifo(tmp_path / "a.png")
    name_failing_samples(dataset)
    with pytest.raises(UnusableSample, match=r"a\.png cannot be used: OSError: .*a\.png: it is a FIFO"):
        dataset[0]
