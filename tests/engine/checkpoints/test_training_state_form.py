"""States that a training cannot go on from are named when a file is read; those of every optimiser pass."""

import copy
import random

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.checkpoints.training_state_form import training_state_problem
from danseg.engine.hooks.random_state import capture, restore
from danseg.errors import UserError

OPTIMIZERS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
}


def stepped(kind, network=None, **arguments):
    """An optimiser that has made two steps."""
    network = network or torch.nn.Linear(3, 2)
    parameters = [network.weight] if kind is OPTIMIZERS.get("Muon") else network.parameters()
    try:
        optimizer = kind(parameters, **{"lr": 0.1, **arguments})
    except TypeError:
        optimizer = kind(parameters)
    for _ in range(2):

        def loss():
            optimizer.zero_grad()
            result = network(torch.ones(4, 3)).square().mean()
            result.backward()
            return result

        if kind is OPTIMIZERS.get("SparseAdam"):  # takes sparse gradients alone
            break
        optimizer.step(loss)
    return optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_of_torch_passes(name):
    assert len(OPTIMIZERS) > 10
    assert training_state_problem({"optimizer": stepped(OPTIMIZERS[name]).state_dict()}) == ""


def test_wrapped_optimisers_and_an_infinite_limit_pass():
    sgd = stepped(torch.optim.SGD, momentum=0.9)
    sgd.param_groups[0]["growth_rate"] = float("inf")
    for wrapper in (
        OptimWrapper(sgd),
        OptimWrapperDict(a=OptimWrapper(sgd), b=OptimWrapper(stepped(torch.optim.Adam))),
    ):
        assert training_state_problem({"optimizer": wrapper.state_dict()}) == ""
    scaler = torch.amp.GradScaler("cpu").state_dict()
    state = {**OptimWrapper(sgd).state_dict(), "loss_scaler": scaler}  # as mmengine's wrapper adds it
    assert scaler and training_state_problem({"optimizer": state}) == ""


def damaged(change):
    """The state of an optimiser and of the generators, after ``change``."""
    content = {
        "state_dict": {"a": torch.ones(2)},
        "ema_state_dict": {"steps": torch.tensor(3), "module.a": torch.ones(2)},
        "optimizer": stepped(torch.optim.SGD, momentum=0.9).state_dict(),
        "random_states": [capture(), capture()],
    }
    content = copy.deepcopy(content)
    change(content)
    return content


def _set(*keys, value):
    def change(content):
        *folders, last = keys
        for key in folders:
            content = content[key]
        content[last] = value(content[last]) if callable(value) else value

    return change


def _drop(*keys):
    def change(content):
        *folders, last = keys
        for key in folders:
            content = content[key]
        del content[last]

    return change


STATE, GROUP = ("optimizer", "state"), ("optimizer", "param_groups", 0)
NAN = torch.tensor([float("nan")])
WRONG = {
    "averaged NaN": (
        _set("ema_state_dict", "module.a", value=NAN),
        "ema_state_dict holds NaN or infinity for",
    ),
    "averaged list": (_set("ema_state_dict", "module.a", value=[1.0]), "ema_state_dict holds a list for"),
    "averaged sparse": (_set("ema_state_dict", "module.a", value=torch.Tensor.to_sparse), "no plain tensor"),
    "no groups": (_drop("optimizer", "param_groups"), "has no list of param_groups"),
    "empty groups": (_set("optimizer", "param_groups", value=[]), "has no list of param_groups"),
    "groups of text": (_set("optimizer", "param_groups", value="x"), "has no list of param_groups"),
    "group of text": (_set(*GROUP, value="x"), "has no list of param_groups"),
    "no state": (_drop(*STATE), "has no dict of a state"),
    "state a list": (_set(*STATE, value=[1]), "has no dict of a state"),
    "state of one": (_set(*STATE, 0, value=3), "has no dict of a state"),
    "other optimiser": (_set("optimizer", value={"a": 3}), "is a int, not a dict, in that of 'a'"),
    "no params": (_drop(*GROUP, "params"), "without the numbers of their parameters"),
    "params of floats": (_set(*GROUP, "params", value=[0.5, 1.0]), "without the numbers of their parameters"),
    "params twice": (_set(*GROUP, "params", value=[0, 0, 1]), "counts its parameters otherwise"),
    "state of none": (_set(*STATE, 77, value={}), "counts its parameters otherwise"),
    "no rate": (_drop(*GROUP, "lr"), "without a number as their rate"),
    "rate a word": (_set(*GROUP, "lr", value="0.1"), "without a number as their rate"),
    "rate NaN": (_set(*GROUP, "lr", value=float("nan")), "the number nan at param_groups.0.lr"),
    "rate infinite": (_set(*GROUP, "lr", value=float("inf")), "the number inf at param_groups.0.lr"),
    "momentum NaN": (
        _set(*GROUP, "momentum", value=float("nan")),
        "the number nan at param_groups.0.momentum",
    ),
    "buffer NaN": (_set(*STATE, 0, "momentum_buffer", value=NAN), "infinity at state.0.momentum_buffer"),
    "buffer complex": (
        _set(*STATE, 0, "momentum_buffer", value=lambda v: v + 0j),
        "no plain tensor of real numbers at state.0.momentum_buffer",
    ),
    "no dict for a process": (_set("random_states", 1, value=[]), "holds a list for process 1"),
    "no torch": (_drop("random_states", 1, "torch"), "no usable state of torch's generator for process 1"),
    "torch cut": (_set("random_states", 0, "torch", value=lambda v: v[:-1]), "of torch's generator"),
    "torch of floats": (_set("random_states", 0, "torch", value=torch.Tensor.float), "of torch's generator"),
    "torch a list": (_set("random_states", 0, "torch", value=[1]), "of torch's generator"),
    "GPU a list": (_set("random_states", 0, "cuda", value=[1]), "of the GPU's generator"),
    "numpy cut": (_set("random_states", 0, "numpy", "keys", value=lambda v: v[:-1]), "of numpy's generator"),
    "numpy beyond": (_set("random_states", 0, "numpy", "position", value=10**6), "of numpy's generator"),
    "numpy below": (_set("random_states", 0, "numpy", "position", value=-3), "of numpy's generator"),
    "numpy words": (_set("random_states", 0, "numpy", "keys", value=lambda v: v - 2**40), "of numpy's"),
    "numpy gauss": (_set("random_states", 0, "numpy", "gauss", value="x"), "of numpy's generator"),
    "numpy of floats": (_set("random_states", 0, "numpy", "keys", value=torch.Tensor.float), "of numpy's"),
    "python cut": (
        _set("random_states", 0, "python", "words", value=lambda v: v[:-1]),
        "of python's generator",
    ),
    "python words": (
        _set("random_states", 0, "python", "words", value=torch.Tensor.neg),
        "of python's generator",
    ),
    "python version": (_set("random_states", 0, "python", "version", value=99), "of python's generator"),
    "python gauss": (_set("random_states", 0, "python", "gauss", value="x"), "of python's generator"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_training_cannot_go_on_from_is_named(tmp_path, case):
    change, message = WRONG[case]
    torch.save(damaged(change), tmp_path / "a.pth")
    with pytest.raises(UserError) as caught:
        read_checkpoint(tmp_path / "a.pth")
    said = str(caught.value)
    assert "a.pth is malformed: its " in said and message in said and "\n" not in said


def test_a_sound_state_passes_and_no_generator_is_touched(tmp_path):
    torch.save(damaged(lambda content: None), tmp_path / "a.pth")
    restore(before := capture())
    read_checkpoint(tmp_path / "a.pth")
    drawn = torch.rand(1).item(), np.random.rand(), random.random()
    restore(before)
    assert drawn == (torch.rand(1).item(), np.random.rand(), random.random())
