"""Which arguments a class takes, over its parents and its ``**kwargs``."""

import pytest
from mmengine.hooks import CheckpointHook
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import MODELS

from danseg.engine.config.config_parts import Part
from danseg.engine.config.signatures import argument, names_read, parameters


class Base:
    def __init__(self, width, depth=3, *, flag=False):
        pass


class PassesOn(Base):
    def __init__(self, own=1, **kwargs):
        super().__init__(**kwargs)


class NamesTheParent(Base):
    def __init__(self, **kwargs):
        Base.__init__(self, **kwargs)


class Inherits(PassesOn):
    pass


class TakesSome(Base):
    def __init__(self, **kwargs):
        self.extra = kwargs.pop("extra", 0)
        self.other = kwargs["other"] if "third" in kwargs else None
        super().__init__(**kwargs)


class Swallows:
    def __init__(self, own, **kwargs):
        pass


class Stores:
    def __init__(self, own, **kwargs):
        self.kwargs = kwargs


class UsesAndPassesOn(Base):
    def __init__(self, **kwargs):
        self.keys = sorted(kwargs)
        super().__init__(**kwargs)


def function(a, b=2):
    pass


BASE = {"width", "depth", "flag"}


@pytest.mark.parametrize(
    ("built", "names", "takes_others"),
    [
        (Base, BASE, False),
        (PassesOn, BASE | {"own"}, False),
        (NamesTheParent, BASE, False),
        (Inherits, BASE | {"own"}, False),
        (TakesSome, BASE | {"extra", "other", "third"}, False),
        (Swallows, {"own"}, False),
        (Stores, {"own"}, True),
        (UsesAndPassesOn, set(), True),
        (function, {"a", "b"}, False),
    ],
)
def test_arguments(built, names, takes_others):
    found, others = parameters(built)
    assert (set(found), others) == (names, takes_others)


def test_a_checkpoint_hook_takes_nothing_that_it_does_not_name():
    found, others = parameters(CheckpointHook)
    assert "save_best" in found and not others


def test_the_value_of_an_argument_is_the_configs_or_the_default():
    part = Part("here", dict(type=PassesOn, width=7), MODELS)
    values = [argument(part, name) for name in ("width", "depth", "flag", "own", "none")]
    assert values == [7, 3, False, 1, None]


def test_the_names_that_a_class_reads():
    known = names_read(DefaultOptimWrapperConstructor, "paramwise_cfg")
    assert {"custom_keys", "norm_decay_mult", "bias_lr_mult", "bypass_duplicate"} <= known
