"""Logits that are made on the first read: every way of reading them works."""

import copy
import dataclasses
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from danseg.segmentors import CoarseLogits, LazyLogits

COARSE = CoarseLogits(
    torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)), size=(16, 20), align_corners=False
)
WANT = COARSE.resized()


@pytest.fixture
def lazy() -> LazyLogits:
    return LazyLogits.of(COARSE)


def unread(logits: PixelData) -> bool:
    return "data" not in vars(logits)


def test_the_first_read_makes_them_once(lazy):
    assert isinstance(lazy, PixelData) and "data" in lazy and lazy.keys() == ["data"]
    assert unread(lazy)
    data = lazy.data
    assert torch.equal(data, WANT) and lazy.data is data and lazy.shape == (16, 20)
    with pytest.raises(AttributeError, match="nothing"):
        _ = lazy.nothing


@pytest.mark.parametrize(
    "take",
    [
        lambda lazy: lazy.cpu(),
        lambda lazy: lazy.to(torch.float32),
        lambda lazy: lazy.detach(),
        lambda lazy: lazy.clone(),
        lambda lazy: lazy.new(),
        lambda lazy: lazy.numpy().to_tensor(),
        copy.copy,
        copy.deepcopy,
        lambda lazy: pickle.loads(pickle.dumps(lazy)),
        lambda lazy: SegDataSample(seg_logits=lazy).cpu().seg_logits,
        lambda lazy: SegDataSample(seg_logits=lazy).clone().seg_logits,
        lambda lazy: copy.deepcopy(SegDataSample(seg_logits=lazy)).seg_logits,
        lambda lazy: pickle.loads(pickle.dumps(SegDataSample(seg_logits=lazy))).seg_logits,
        lambda lazy: SegDataSample(seg_logits=lazy).get("seg_logits"),
    ],
)
@pytest.mark.parametrize("read", [False, True])
def test_whatever_is_made_of_them_holds_them(lazy, take, read):
    if read:
        assert torch.equal(lazy.data, WANT)
    taken = take(lazy)
    assert isinstance(taken, PixelData) and torch.equal(taken.data, WANT)


def test_they_are_made_where_the_logits_are_and_move_from_there(device):
    coarse = dataclasses.replace(COARSE, logits=COARSE.logits.to(device))
    sample = SegDataSample(seg_logits=LazyLogits.of(coarse))
    assert sample.seg_logits.data.device == device
    for taken in (sample.cpu(), sample.to("cpu"), copy.deepcopy(sample), pickle.loads(pickle.dumps(sample))):
        torch.testing.assert_close(taken.seg_logits.data.cpu(), WANT)
    unread_before = SegDataSample(seg_logits=LazyLogits.of(coarse)).cpu().seg_logits
    assert unread_before.data.device.type == "cpu"
    assert coarse.labels().device == device and torch.equal(coarse.labels().cpu(), COARSE.labels())


def test_slices_and_changes(lazy):
    assert torch.equal(lazy[2:4, :7].data, WANT[:, 2:4, :7])
    lazy.data += 1
    assert torch.equal(lazy.data, WANT + 1)
    lazy.data = torch.zeros_like(WANT)
    assert not lazy.data.any()
    unread_before = LazyLogits.of(COARSE)
    unread_before.data = torch.zeros_like(WANT)
    assert not unread_before.data.any()
    assert "tensor" in repr(LazyLogits.of(COARSE))


@pytest.mark.parametrize(
    "look",
    [
        lambda fields: fields["data"],
        lambda fields: fields.get("data"),
        lambda fields: dict(fields)["data"],
        lambda fields: {**fields}["data"],
        lambda fields: dict(fields.items())["data"],
        lambda fields: next(iter(fields.values())),
        lambda fields: {key: fields[key] for key in fields}["data"],
        lambda fields: fields.copy()["data"],
        lambda fields: copy.copy(fields)["data"],
        lambda fields: copy.deepcopy(fields)["data"],
        lambda fields: (fields | {"more": 1})["data"],
        lambda fields: pickle.loads(pickle.dumps(fields))["data"],
        lambda fields: fields.pop("data"),
    ],
)
def test_as_a_dict_they_are_there_for_who_looks(lazy, look):
    fields = SegDataSample(seg_logits=lazy).to_dict()["seg_logits"]
    assert isinstance(fields, dict) and unread(lazy)
    assert torch.equal(look(fields), WANT)


def test_a_dict_of_them_can_be_asked_and_changed(lazy):
    fields = lazy.to_dict()
    assert "data" in fields and "other" not in fields and len(fields) == 1 and fields
    fields["data"] = np.zeros(3)
    assert not fields["data"].any() and torch.equal(lazy.data, WANT)
    assert torch.equal(lazy.to_dict()["data"], WANT)


def test_two_threads_that_read_first_get_the_same_tensor(monkeypatch):
    meet = threading.Barrier(2, timeout=10)
    resized = CoarseLogits.resized

    def in_step(self):
        meet.wait()
        return resized(self)

    monkeypatch.setattr(CoarseLogits, "resized", in_step)
    for _ in range(20):
        lazy = LazyLogits.of(COARSE)
        with ThreadPoolExecutor(2) as pool:
            one, other = (reading.result() for reading in [pool.submit(getattr, lazy, "data") for _ in "ab"])
        assert one is other is lazy.data and torch.equal(one, WANT)
