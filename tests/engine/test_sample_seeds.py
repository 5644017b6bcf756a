"""Samples are seeded by their place: whatever loads them, in whatever order, however often it was stopped."""

import itertools
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, DefaultSampler, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS, init_default_scope
from mmseg.datasets import CityscapesDataset
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from danseg.datasets.metainfo import metainfo_of
from danseg.datasets.wrappers import infos, inner_datasets, named_sets
from danseg.engine import sample_seeds
from danseg.engine.hooks.random_state import capture
from danseg.engine.runner import DansegRunner
from danseg.engine.sample_seeds import (
    Draw,
    DrawSampler,
    SeededDataset,
    can_go_on,
    draw_sampler,
    go_on,
    unreached,
)
from danseg.errors import UserError
from equal_nests import equal

IMAGES = 7


@DATASETS.register_module(force=True)
class Drawing:
    """A data set whose samples are their index and what each generator draws for them."""

    metainfo = dict(classes=("a",))

    def __init__(self, pipeline=None):
        self.pipeline = pipeline

    def __len__(self):
        return IMAGES

    def __getitems__(self, indices):
        raise AssertionError("would load a batch without seeds")

    def __getitem__(self, index):
        assert type(index) is int  # what is said of a sample is written to JSON and compared
        return index, random.random(), np.random.rand(), torch.rand(()).item()


@DATA_SAMPLERS.register_module(force=True)
class TorchsOwn(RandomSampler):
    def __init__(self, dataset, seed=None):
        super().__init__(dataset)


def built(kind="InfiniteSampler", seed=3, **options):
    config = dict(dataset=dict(type="Drawing"), sampler=dict(type=kind), batch_size=2, num_workers=0)
    return DansegRunner.build_dataloader({**config, **options, "collate_fn": dict(type=list)}, seed=seed)


def batches(loader, count=None, epoch=0):
    if count is None:
        draw_sampler(loader).set_epoch(epoch)
    return list(itertools.islice(loader, count))


def test_a_draw_is_an_index_that_survives_the_way_to_a_worker():
    draw = pickle.loads(pickle.dumps(Draw(5, epoch=1, place=9)))
    assert draw == 5 and range(10)[draw] == 5 and (draw.epoch, draw.place) == (1, 9)


def test_a_sample_draws_what_its_seed_pass_and_place_say_and_moves_no_generator():
    dataset = SeededDataset(dict(type="Drawing"), seed=3)
    np.random.randn()  # NumPy's generator now stores a second Gaussian number
    before = capture()
    draws = {
        key: dataset[Draw(2, *key)][1:] for key in [(0, 0), (0, 1), (1, 0), (1, 1), (256, 0), (2**33, 0)]
    }
    assert equal(capture(), before)
    # Written out: three generators, each from words that NumPy spreads from seed, pass and place.
    for (epoch, place), drawn in draws.items():
        words = np.random.SeedSequence(3, spawn_key=(epoch, place)).generate_state(8)
        generator = torch.Generator().manual_seed(int(words[1]))
        assert drawn == (
            random.Random(int(words[0])).random(),
            np.random.RandomState(words).rand(),
            torch.rand((), generator=generator).item(),
        )
    for column in zip(*draws.values(), strict=True):
        assert len(set(column)) == len(draws)
    assert SeededDataset(Drawing(), seed=4)[Draw(2, 0, 0)][1:] not in draws.values()


def test_an_error_in_a_sample_moves_no_generator():
    before = capture()
    with pytest.raises(ZeroDivisionError), sample_seeds.aside():
        random.random(), np.random.rand(), torch.rand(2)
        raise ZeroDivisionError
    assert equal(capture(), before)


def test_the_data_set_is_seen_through():
    dataset = SeededDataset(dict(type="Drawing", pipeline=[1]), seed=0)
    assert dataset.metainfo == Drawing.metainfo and len(dataset) == IMAGES
    dataset.pipeline = [2]  # as hooks do that change the augmentation towards the end
    assert dataset.dataset.pipeline == [2] and list(inner_datasets(dataset)) == [dataset.dataset]
    with pytest.raises(AttributeError):
        dataset.nothing  # noqa: B018
    copied = pickle.loads(pickle.dumps(dataset))
    assert copied.pipeline == [2] and copied[Draw(1, 0, 0)] == dataset[Draw(1, 0, 0)]


@pytest.mark.parametrize("kind", ["InfiniteSampler", "DefaultSampler", "TorchsOwn"])
def test_workers_and_the_generators_of_the_process_change_nothing(kind):
    alone = batches(built(kind), 3)
    assert len(set(itertools.chain(*alone))) == 6
    torch.manual_seed(11)
    before = capture()
    for options in ({}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}):
        assert batches(built(kind, **options), 3) == alone
    assert equal(capture(), before)
    assert batches(built(kind, seed=4), 3) != alone


@pytest.mark.parametrize("kind", ["DefaultSampler", "TorchsOwn"])
@pytest.mark.parametrize("options", [{}, {"num_workers": 1}, {"num_workers": 1, "persistent_workers": True}])
def test_each_pass_draws_anew(kind, options):
    loader = built(kind, **options)
    first, second = (list(itertools.chain(*batches(loader, epoch=epoch))) for epoch in (0, 1))
    assert [index for index, *_ in first] != [index for index, *_ in second]
    assert sorted(index for index, *_ in first) == sorted(index for index, *_ in second) == [*range(IMAGES)]
    assert not {row[1] for row in first} & {row[1] for row in second}
    assert batches(loader, epoch=0) == [[*pair] for pair in batches(built(kind), epoch=0)]


@pytest.mark.parametrize("kind", [InfiniteSampler, DefaultSampler])
def test_the_order_is_the_samplers_and_the_place_that_of_all_processes(monkeypatch, kind):
    def drawn(rank, world_size):
        for module in ("mmengine.dataset.sampler", "danseg.engine.sample_seeds"):
            monkeypatch.setattr(f"{module}.get_dist_info", lambda: (rank, world_size))
        sampler = DrawSampler(dict(type=kind.__name__), Drawing(), seed=5, sample_seed=5)
        own = kind(Drawing(), seed=5)
        found = list(itertools.islice(sampler, 9))
        assert found == list(itertools.islice(own, 9))
        return [(draw.place, int(draw)) for draw in found]

    one = dict(drawn(0, 1))
    two = drawn(0, 2) + drawn(1, 2)
    assert len({place for place, _ in two}) == len(two)
    assert all(one[place] == index for place, index in two if place in one)


@pytest.mark.parametrize("kind", ["InfiniteSampler", "DefaultSampler", "TorchsOwn"])
@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"batch_size": None, "collate_fn": None}])
def test_a_loader_goes_on_wherever_another_ended(kind, options):
    if options.get("collate_fn", 0) is None:
        options = {**options, "collate_fn": dict(type=tuple)}
    straight = []
    loader = built(kind, **options)
    for epoch in range(3):
        straight += batches(loader, 12 if kind == "InfiniteSampler" else None, epoch)
        if kind == "InfiniteSampler":
            break
    for done in range(len(straight)):
        loader = built(kind, **options)
        batches(loader, 1)  # mmengine 0.10.7 begins before it resumes
        assert can_go_on(loader)
        epoch, rest = go_on(loader, 0, done), []
        rest += batches(loader, 12 - done if kind == "InfiniteSampler" else None, epoch)
        assert rest == straight[done : done + len(rest)], done
        assert rest or kind != "InfiniteSampler"


def test_a_skip_is_that_of_mmengines_sampler():
    sampler = DrawSampler(dict(type="InfiniteSampler"), Drawing(), seed=5, sample_seed=5)
    whole = [(int(one), one.place) for one in itertools.islice(sampler, 12)]
    sampler.skip(9)
    assert [(int(one), one.place) for one in itertools.islice(sampler, 3)] == whole[9:]
    assert [(int(one), one.place) for one in itertools.islice(sampler, 12)] == whole  # once


def test_loaders_of_other_making_are_known():
    other = DataLoader(Drawing(), batch_size=2)
    assert DansegRunner.build_dataloader(other, seed=0) is other and not can_go_on(other)

    class OwnBatches(BatchSampler):
        pass

    assert can_go_on(built()) and not can_go_on(built(batch_sampler=dict(type=OwnBatches, drop_last=False)))


class Own:
    """A transform that draws from what it is given."""

    def __init__(self, *draws):
        self.deep = {"draws": [*draws]}

    def __call__(self, results):
        return results


@pytest.mark.parametrize(
    "own", [np.random.default_rng(1), np.random.RandomState(1), random.Random(1), torch.Generator()]
)
def test_transforms_with_a_generator_of_their_own_are_found(own):
    common = [random.random, np.random.rand, np.random, torch.default_generator, random]
    for pipeline in ([Own(own), 1], Compose([Own(random.random, own)])):
        inner = SimpleNamespace(pipeline=pipeline)
        assert list(unreached(inner)) == ["Own"]
        assert (
            list(unreached(SimpleNamespace(datasets=[inner, SimpleNamespace(dataset=inner)]))) == ["Own"] * 2
        )
    assert not list(unreached(SimpleNamespace(pipeline=[*map(Own, common), lambda results: results])))


def test_no_transform_of_a_config_has_a_generator_of_its_own(tiny):
    init_default_scope("mmseg")
    assert not list(unreached(DansegRunner.build_dataloader(tiny().train_dataloader, seed=0).dataset))


WRAPPERS = {
    "none": lambda dataset: dataset,
    "concatenated": lambda dataset: dict(type="ConcatDataset", datasets=[dataset, dataset]),
    "repeated": lambda dataset: dict(type="RepeatDataset", dataset=dataset, times=2),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
@pytest.mark.parametrize("options", [{}, {"num_batch_per_epoch": 2}])
def test_what_a_run_asks_of_a_loaders_data_sets_is_answered(tiny, wrap, options):
    init_default_scope("mmseg")
    config = tiny().train_dataloader
    config = {**config, **options, "dataset": wrap(config.dataset)}
    loader = DansegRunner.build_dataloader(config, seed=0)
    parts = list(inner_datasets(loader.dataset))
    assert {type(part) for part in parts} == {CityscapesDataset}
    assert len(loader.dataset.metainfo["palette"]) == len(metainfo_of(loader.dataset)["classes"]) == 19
    assert len(infos(parts[0])) == 6
    assert len(named_sets(loader.dataset)) == (2 if len(parts) == 2 else 0)
    for part in parts:
        part.pipeline = None  # not callable
    with pytest.raises(UserError, match=r"image .*_leftImg8bit\.png with label .* cannot be used"):
        next(iter(loader))
