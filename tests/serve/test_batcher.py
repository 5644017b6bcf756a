"""Who goes through the network together, in which order, and who fails."""

import threading
import time

import pytest
import torch

from danseg.serve.batcher import Batcher


def sample(value: int, side: int = 4) -> dict:
    return {"inputs": torch.full((3, side, side), value)}


@pytest.fixture
def make_batcher():
    """``make_batcher(network, limit=..., wait=...)``: its network gets the values of samples."""
    made, sizes = [], []

    def make(network=lambda values: values, limit=4, wait=0.0):
        batcher = Batcher(
            lambda samples: network([int(one["inputs"][0, 0, 0]) for one in samples]),
            lambda _: limit,
            wait,
            sizes.append,
        )
        made.append(batcher)
        return batcher, sizes

    yield make
    for one in made:
        one.close(5)
        assert not one.alive


def test_what_waits_goes_together_by_size_and_order(make_batcher):
    seen = []
    batcher, sizes = make_batcher(lambda values: seen.append(values) or values, limit=3)
    futures = [batcher.submit(sample(value, side)) for value, side in enumerate([4, 4, 8, 4, 4, 8])]
    batcher.start()
    assert [one.result(5) for one in futures] == [0, 1, 2, 3, 4, 5]
    assert seen == [[0, 1, 3], [2, 5], [4]] and sizes == [3, 2, 1]


def test_another_type_is_another_batch(make_batcher):
    batcher, sizes = make_batcher()
    futures = [batcher.submit(sample(1)), batcher.submit({"inputs": torch.ones(3, 4, 4)})]
    batcher.start()
    assert [one.result(5) for one in futures] == [1, 1] and sizes == [1, 1]


def test_the_first_waits_for_others_but_not_longer_than_said(make_batcher):
    batcher, sizes = make_batcher(limit=2, wait=0.3)
    batcher.start()
    start = time.monotonic()
    first = batcher.submit(sample(1))
    time.sleep(0.05)
    assert batcher.submit(sample(2)).result(5) == 2 and first.result(5) == 1
    assert time.monotonic() - start < 0.25 and sizes == [2]  # full, it does not wait any longer
    start = time.monotonic()
    batcher.submit(sample(3)).result(5)
    assert 0.29 < time.monotonic() - start < 2 and sizes == [2, 1]


def test_cancelled_ones_are_left_out(make_batcher):
    batcher, sizes = make_batcher()
    first, second = batcher.submit(sample(1)), batcher.submit(sample(2))
    assert first.cancel()
    batcher.start()
    assert second.result(5) == 2 and sizes == [1]


def test_one_that_fails_fails_alone(make_batcher):
    def network(values):
        if 1 in values:
            raise MemoryError("too large")
        return values

    batcher, _ = make_batcher(network)
    futures = [batcher.submit(sample(value)) for value in range(3)]
    batcher.start()
    assert (futures[0].result(5), futures[2].result(5)) == (0, 2)
    with pytest.raises(MemoryError, match="too large"):
        futures[1].result(5)
    assert batcher.alive


def test_after_a_fault_of_the_gpu_nothing_is_tried_again(make_batcher):
    calls = []

    def network(values):
        calls.append(values)
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with")

    batcher, _ = make_batcher(network)
    futures = [batcher.submit(sample(value)) for value in range(2)]
    batcher.start()
    for one in futures:
        with pytest.raises(RuntimeError, match="CUDA"):
            one.result(5)
    assert calls == [[0, 1]] and not batcher.alive
    assert batcher.broken == "CUDA error: device-side assert triggered"


def test_what_waits_is_computed_before_the_end(make_batcher):
    let = threading.Event()
    batcher, _ = make_batcher(lambda values: let.wait(5) and values, limit=1)
    futures = [batcher.submit(sample(value)) for value in range(3)]
    batcher.start()
    threading.Timer(0.05, let.set).start()
    batcher.close(5)
    assert [one.result(0) for one in futures] == [0, 1, 2]
