"""An error names the sample that fails during a run."""

import pytest
import torch
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
