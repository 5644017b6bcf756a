"""What kind of value an entry takes, by a class's annotations; mmseg's own configs pass (test_agreement)."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from mmengine.registry import Registry

from danseg.engine.config.config_parts import Part
from danseg.engine.config.kinds import wrong_arguments, wrong_at_the_top

KINDS = Registry("kinds")


class Takes:
    __module__ = "danseg.somewhere"

    def __init__(
        self,
        whole: int = 1,
        ratio: "float | None" = None,
        name: str = "",
        switch: bool = False,
        sides: int | Sequence[int] = 1,
        extra: dict | None = None,
        anything: Any = None,
        sizes: list[int] | None = None,
    ) -> None: ...


def said(built=Takes, **values):
    return list(wrong_arguments(Part("here", {"type": built, **values}, KINDS), built))


@pytest.mark.parametrize(
    ("name", "value", "give"),
    [
        ("whole", "x", "a whole number"),
        ("whole", [], "a whole number"),
        ("whole", {}, "a whole number"),
        ("ratio", "x", "a number or None"),
        ("name", [], "a text"),
        ("name", 3.0, "a text"),
        ("switch", "x", "True or False"),
        ("switch", 3, "True or False"),
        ("sides", "x", "a whole number or a list"),
        ("extra", 3, "a dict or None"),
        ("sizes", 3, "a list or None"),
    ],
)
def test_another_kind_is_named_with_what_is_allowed(name, value, give):
    assert said(**{name: value}) == [f"here.{name}={value!r}: give {give}"]


@pytest.mark.parametrize(
    "values",
    [
        dict(whole=2, ratio=1, name="x", switch=True, sides=(1, 2), extra={}, sizes=[1]),
        dict(whole=True, ratio=0.5, switch=1, sides=3, anything="x"),
        dict(whole=None, name=None, sizes=None, whole_other="x"),  # another rule knows its arguments
        dict(extra=[{}], sizes={}),  # annotations that say less than classes take
        dict(whole=object()),  # made by a program
    ],
)
def test_what_fits_or_may_fit_passes(values):
    assert said(**values) == []


def test_annotations_of_a_users_own_class_are_not_read():
    own = type("Own", (Takes,), {"__module__": "mine"})
    assert said(own, whole="x") == []


def test_names_at_the_top():
    assert list(wrong_at_the_top({"visualizer": 3, "other": 3, "resume": None})) == [
        "visualizer=3: give a dict or None"
    ]
    assert list(wrong_at_the_top({"visualizer": object(), "env_cfg": {}, "recompute": ["backbone"]})) == []


def test_numbers_and_truths_do_not_mix():
    assert said(sides=(True, 2)) == [
        "here.sides=(True, 2): give whole numbers alone, or True and False alone"
    ]
    assert not said(sides=(1, 2)) and not said(anything=(True, False))


@pytest.mark.parametrize(
    ("env_cfg", "message"),
    [
        (dict(cudnn_benchmrk=True), "env_cfg.cudnn_benchmrk is not known; known: cudnn_benchmark, mp_cfg"),
        (dict(mp_cfg=dict(opencv_thxeads=0)), "env_cfg.mp_cfg.opencv_thxeads is not known; known: mp_start"),
        (dict(mp_cfg=3), "env_cfg.mp_cfg=3: give a dict"),
        (dict(dist_cfg=dict(timeout=60)), "env_cfg.dist_cfg.timeout: processes wait .* --collective-timeout"),
    ],
)
def test_the_environment_is_what_mmengine_reads(env_cfg, message):
    [found] = wrong_at_the_top({"env_cfg": env_cfg})
    assert re.match(message, found)
