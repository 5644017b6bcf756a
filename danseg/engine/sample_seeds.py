"""Seed every sample by its place in the data's order, so that nothing else decides how it is augmented.

What a sample's transforms draw is a function of the seed, the pass over the data and the sample's place in
the order of that pass. It does not matter which worker loads it, how many there are, what was loaded before,
or whether the training was resumed. mmengine seeds workers instead: their number changes the augmentation, a
resumed run repeats what the first iterations drew, and workers that do not outlive an epoch draw the same in
each. A transform that draws from a generator of its own is not reached; :func:`unreached` names it.
"""

import io
import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import BatchSampler, DataLoader, Sampler, get_worker_info


class Draw(int):
    """An index into a data set that knows when it was drawn.

    Attributes:
        epoch: the pass over the data, from 0.
        place: the place in the order of that pass, which all processes share.
    """

    epoch: int
    place: int

    def __new__(cls, index: int, epoch: int, place: int) -> "Draw":
        draw = super().__new__(cls, index)
        draw.epoch, draw.place = epoch, place
        return draw

    def __getnewargs__(self) -> tuple[int, int, int]:  # type: ignore[override]
        return int(self), self.epoch, self.place


def draw_from(seed: int, *key: int) -> None:
    """Let NumPy, Python and PyTorch's CPU draw from a seed and a key from now on.

    A GPU's generator is left alone: what draws from it, such as dropout, is the network's.
    """
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(8)
    np.random.seed(words)
    random.seed(int(words[0]))
    torch.default_generator.manual_seed(int(words[1]))


@contextmanager
def aside() -> Iterator[None]:
    """Give NumPy, Python and PyTorch's CPU their random numbers back after the block, whatever it draws."""
    before = np.random.get_state(legacy=False), random.getstate(), torch.get_rng_state()
    try:
        yield
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])
        torch.set_rng_state(before[2])


class SeededDataset:
    """A data set, or what wraps it, that seeds the random numbers of each sample; else it is that data set.

    Args:
        dataset: a data set, or its config.
        seed: seed of all samples.
    """

    dataset: Any

    def __init__(self, dataset: Any, seed: int) -> None:
        built = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.__dict__.update(dataset=built, sample_seed=seed)

    def __getattr__(self, name: str) -> Any:
        # Private names too, but none that Python looks up: `__getitems__` would load a batch without seeds.
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)  # a hook that replaces the pipeline means the data set's

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, Draw):
            return self.dataset[index]
        # Workers draw for samples alone. In the training's process the network draws, too.
        with nullcontext() if get_worker_info() else aside():
            draw_from(self.sample_seed, index.epoch, index.place)
            return self.dataset[int(index)]


class DrawSampler(Sampler[int]):
    """A sampler whose indices are :class:`Draw`; else it is that sampler.

    Args:
        sampler: a sampler, or its config.
        dataset: the data set, for the config.
        seed: seed of the order, for the config.
        sample_seed: seed of the order of a sampler that draws it from the global generators, as PyTorch's
            RandomSampler does.
    """

    def __init__(self, sampler: Any, dataset: Any, seed: int | None, sample_seed: int) -> None:
        if isinstance(sampler, dict):
            sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self._sampler = sampler
        self.sample_seed = sample_seed
        self._rank, self._world_size = get_dist_info()
        self._to_skip = 0
        self.epoch = 0
        self.given = 0  # indices of the current pass that are out, with those that a skip left out

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_sampler":
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        if isinstance(self._sampler, InfiniteSampler):  # it would go on where it was left
            self._sampler.indices = self._sampler._indices_of_rank()
        epoch, self.given = self.epoch, self._to_skip
        self._to_skip = 0
        with aside():  # a sampler that draws its order does so for its first index
            draw_from(self.sample_seed, epoch)
            indices = iter(self._sampler)
            indices = chain(list(islice(indices, 1)), indices)
        for index in islice(indices, self.given, None):
            self.given += 1
            yield Draw(index, epoch, self._rank + self._world_size * (self.given - 1))

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass over the data that the next iteration makes, from 0."""
        self.epoch = epoch
        if hasattr(self._sampler, "set_epoch"):
            self._sampler.set_epoch(epoch)

    def skip(self, count: int) -> None:
        """Let the next iteration leave out the first ``count`` indices of its pass."""
        self._to_skip = count


def seeded(loader: dict[str, Any], seed: int) -> dict[str, Any]:
    """The config of a loader whose samples are seeded, made of that of any loader, which is not changed."""
    return {
        **loader,
        "dataset": dict(type=SeededDataset, dataset=loader["dataset"], seed=seed),
        "sampler": dict(type=DrawSampler, sampler=loader["sampler"], sample_seed=seed),
    }


def own_dataset(loader: DataLoader) -> Any:
    """The data set of a loader as its config names it."""
    dataset = loader.dataset
    return dataset.dataset if isinstance(dataset, SeededDataset) else dataset


def unreached(dataset: Any) -> Iterator[str]:
    """The names of a data set's transforms that hold a random generator of their own."""
    for part in (*getattr(dataset, "datasets", ()), getattr(dataset, "dataset", None)):
        if part is not None:
            yield from unreached(part)
    pipeline = getattr(dataset, "pipeline", None)
    for transform in getattr(pipeline, "transforms", pipeline) or ():
        search = _GeneratorSearch()
        with suppress(Exception):  # what cannot be pickled is searched up to there
            search.dump(transform)
        if search.found:
            yield type(transform).__name__


class _GeneratorSearch(pickle.Pickler):
    """Finds out whether an object holds a random generator besides the global ones, however deep."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.found = False

    def persistent_id(self, part: Any) -> None:
        kinds = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
        # `self.draw = random.random` is a method of the global generator.
        common = (getattr(random.random, "__self__", None), np.random.mtrand._rand, torch.default_generator)
        if isinstance(part, kinds) and not any(part is one for one in common):
            self.found = True


def draw_sampler(loader: DataLoader) -> DrawSampler | None:
    """The sampler of a loader that :func:`seeded` made; None if a loader of the user's own has another."""
    batches = loader.batch_sampler
    sampler = loader.sampler if batches is None else getattr(batches, "sampler", None)
    return sampler if isinstance(sampler, DrawSampler) else None


def can_go_on(loader: DataLoader) -> bool:
    """Whether :func:`go_on` knows how a loader makes batches of what its sampler gives."""
    return draw_sampler(loader) is not None and type(loader.batch_sampler) in (BatchSampler, type(None))


def go_on(loader: DataLoader, epoch: int, batches: int) -> int:
    """Let a loader's next iteration go on where another one ended, without loading what it leaves out.

    Args:
        loader: a data loader that :func:`can_go_on`.
        epoch: the pass over the data from whose begin ``batches`` are counted, from 0.
        batches: how many batches were taken, of that pass and of those that followed.

    Returns:
        The pass over the data in which it goes on.
    """
    sampler = draw_sampler(loader)
    assert sampler is not None
    order = sampler if loader.batch_sampler is None else loader.batch_sampler
    given = 0
    sampler.set_epoch(epoch)
    while taken := sum(1 for _ in islice(order, batches)):
        batches, given = batches - taken, sampler.given
        if not batches:
            break
        epoch += 1
        sampler.set_epoch(epoch)
    sampler.skip(given)
    return epoch
