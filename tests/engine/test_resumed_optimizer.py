"""States of optimisers and schedules: taken up exactly, with other settings, or refused."""

import copy
import inspect
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn

from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.hooks import StoredSettingsHook
from danseg.engine.resumed_optimizer import (
    all_rates,
    check_states,
    follow_length,
    span,
    take_over,
    without_moments,
)
from danseg.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `scheduler.step")
WARM_UP, LENGTH, POWER, ETA, START = 4, 12, 0.9, 1e-3, 0.1
CHAIN = (
    dict(type="LinearLR", start_factor=START, begin=0, end=WARM_UP, by_epoch=False),
    dict(type="PolyLR", power=POWER, eta_min=ETA, begin=WARM_UP, end=LENGTH, by_epoch=False),
)


def closed_form(lr, step, warm_up=WARM_UP, length=LENGTH, power=POWER):
    """The rate of iteration ``step`` under CHAIN, from the formulas of its two schedules.

    mmengine's last step of a schedule is the one before its end.
    """
    warm = lr * (START + (1 - START) * min(step / (warm_up - 1), 1))
    if step < warm_up:
        return warm
    return (lr - ETA) * (1 - min((step - warm_up) / (length - warm_up - 1), 1)) ** power + ETA


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))


def built(optimizer=None, chain=CHAIN, length=LENGTH, several=False, epochs=None):
    """What of a runner matters here: optimisers, schedules and loop."""
    optimizer = {"type": "SGD", "lr": 0.5, "momentum": 0.9, **(optimizer or {})}
    logger = logging.getLogger("test_resumed_optimizer")
    wrappers, rates = {}, {}
    for name in ("one", "two") if several else ("one",):
        model = network()
        options = {**optimizer, "params": model.parameters()}
        wrappers[name] = OptimWrapper(OPTIMIZERS.build(options))
        rates[name] = [PARAM_SCHEDULERS.build(dict(one, optimizer=wrappers[name])) for one in chain]
        wrappers[name].parameters = list(model.parameters())
    return SimpleNamespace(
        optim_wrapper=OptimWrapperDict(**wrappers) if several else wrappers["one"],
        param_schedulers=rates if several else rates["one"],
        train_loop=SimpleNamespace(iter=0, epoch=0, max_iters=length, max_epochs=1),
        logger=logger,
    )


def wrappers_of(runner):
    several = isinstance(runner.optim_wrapper, OptimWrapperDict)
    return list(runner.optim_wrapper.values()) if several else [runner.optim_wrapper]


def trained(runner, steps):
    """Take steps with gradients that depend on the iteration, and give the rates of each."""
    rates = []
    for _ in range(steps):
        for wrapper in wrappers_of(runner):
            generator = torch.Generator().manual_seed(runner.train_loop.iter)
            for parameter in wrapper.parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            wrapper.step()
        rates.append([wrapper.param_groups[0]["lr"] for wrapper in wrappers_of(runner)])
        for rate in all_rates(runner):
            rate.step()
        runner.train_loop.iter += 1
    return rates


def checkpoint_of(runner):
    rates = runner.param_schedulers
    states = (
        {name: [one.state_dict() for one in some] for name, some in rates.items()}
        if isinstance(rates, dict)
        else [one.state_dict() for one in rates]
    )
    return copy.deepcopy({"optimizer": runner.optim_wrapper.state_dict(), "param_schedulers": states})


def as_mmengine_resumes(runner, checkpoint, iteration):
    runner.train_loop.iter = iteration
    runner.optim_wrapper.load_state_dict(checkpoint["optimizer"])
    states = checkpoint["param_schedulers"]
    states = [one for some in states.values() for one in some] if isinstance(states, dict) else states
    for rate, state in zip(all_rates(runner), states, strict=True):
        rate.load_state_dict(state)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("at", [0, 2, 4, 7, 12])
def test_a_new_rate_acts_from_the_iteration_at_which_training_goes_on(several, at):
    first = built(several=several)
    before = trained(first, at)
    for step, rates in enumerate(before):
        assert rates == pytest.approx([closed_form(0.5, step)] * len(rates), rel=1e-12), step
    resumed = built({"lr": 0.2, "weight_decay": 0.01}, several=several)
    resumed.train_loop.iter = at
    assert take_over(resumed, checkpoint_of(first), anew=False) == []
    for wrapper, old in zip(wrappers_of(resumed), wrappers_of(first), strict=True):
        [group] = wrapper.param_groups
        assert (group["weight_decay"], group["momentum"], group["initial_lr"]) == (0.01, 0.9, 0.2)
        moments = zip(wrapper.optimizer.state.values(), old.optimizer.state.values(), strict=True)
        assert all(torch.equal(new["momentum_buffer"], was["momentum_buffer"]) for new, was in moments)
        assert len(wrapper.optimizer.state) == (6 if at else 0)
    for step, rates in enumerate(trained(resumed, LENGTH - at), at):
        assert rates == pytest.approx([closed_form(0.2, step)] * len(rates), rel=1e-12), step


def test_without_changes_mmengine_takes_the_rate_of_the_checkpoint():
    """Why changes have to be refused, or applied: a resumed optimiser forgets what its config says."""
    first = built()
    trained(first, 7)
    resumed = built({"lr": 0.2})
    as_mmengine_resumes(resumed, checkpoint_of(first), 7)
    rates = [rate for [rate] in trained(resumed, LENGTH - 7)]
    assert rates == pytest.approx([closed_form(0.5, step) for step in range(7, LENGTH)], rel=1e-12)


@pytest.mark.parametrize("several", [False, True])
def test_rates_that_are_placed_are_those_that_were_stored_to_the_bit(several):
    first = built(several=several)
    trained(first, 7)
    placed, stored = built(several=several), checkpoint_of(first)
    placed.train_loop.iter = 7
    take_over(placed, stored, anew=False)
    for rate, was in zip(all_rates(placed), all_rates(first), strict=True):
        assert rate.state_dict() == was.state_dict()
    for new, was in zip(wrappers_of(placed), wrappers_of(first), strict=True):
        assert new.param_groups[0]["lr"] == was.param_groups[0]["lr"]


SCHEDULES = {  # what a schedule has to be told
    "CosineAnnealingLR": dict(T_max=LENGTH),
    "CosineRestartLR": dict(periods=[5, 7], restart_weights=[1, 0.5], eta_min=0),
    "ExponentialLR": dict(gamma=0.9),
    "MultiStepLR": dict(milestones=[3, 9]),
    "OneCycleLR": dict(eta_max=1.0, total_steps=LENGTH),
    "ReduceOnPlateauLR": dict(by_epoch=True),
    "StepLR": dict(step_size=3),
}


@pytest.mark.parametrize("kind", [name for name in PARAM_SCHEDULERS.module_dict if name.endswith("LR")])
def test_every_schedule_is_stored_read_and_placed(kind, tmp_path):
    chain = (dict(type=kind, **{"by_epoch": False, **SCHEDULES.get(kind, {})}),)
    first = built(chain=chain)
    trained(first, 7)
    checkpoint = {"state_dict": {}, **checkpoint_of(first)}
    hook = StoredSettingsHook()
    hook._text = "{}"
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / "a.pth")
    stored = read_checkpoint(tmp_path / "a.pth")
    placed, resumed = built(chain=chain), built(chain=chain)
    check_states(resumed, stored, "a.pth")
    as_mmengine_resumes(resumed, stored, 7)
    rates = trained(first, 4)
    assert trained(resumed, 4) == rates
    placed.train_loop.iter = 7
    notes = take_over(placed, read_checkpoint(tmp_path / "a.pth"), anew=False)
    assert trained(placed, 4) == rates
    depends = "ReduceOnPlateauLR starts afresh, as it depends on the scores of validations"
    assert notes == ([depends] if kind == "ReduceOnPlateauLR" else [])


def test_rates_of_epochs_are_placed_by_epochs(monkeypatch):
    """A warm-up over iterations, then steps between epochs of 5: 0.5 -> 0.05 after the second of them."""
    chain = (
        dict(type="LinearLR", start_factor=START, begin=0, end=WARM_UP, by_epoch=False),
        dict(type="MultiStepLR", milestones=[2], gamma=0.1, by_epoch=True),
    )
    monkeypatch.setattr("danseg.engine.resumed_optimizer.EpochBasedTrainLoop", SimpleNamespace)
    for iteration, epoch, expected in ((9, 1, 0.5), (10, 2, 0.05), (10, 1, 0.5), (12, 3, 0.05)):
        runner = built(chain=chain)
        runner.train_loop = SimpleNamespace(iter=iteration, epoch=epoch, dataloader=range(5))
        take_over(runner, checkpoint_of(built(chain=chain)), anew=False)
        assert runner.optim_wrapper.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)


def test_another_optimiser_or_other_groups_start_with_fresh_moments_and_say_so():
    first = built()
    trained(first, 7)
    resumed = built_with(torch.optim.AdamW(network().parameters(), lr=0.2))
    resumed.train_loop.iter = 7
    [note] = take_over(resumed, checkpoint_of(first), anew=True)
    assert note == "the optimiser is of another type: it starts with fresh moments"
    assert not resumed.optim_wrapper.optimizer.state
    assert resumed.optim_wrapper.param_groups[0]["lr"] == pytest.approx(closed_form(0.2, 7), rel=1e-12)

    groups = [dict(params=[one]) for one in network().parameters()]
    resumed = built_with(torch.optim.SGD(groups, lr=0.2, momentum=0.9))
    [note] = take_over(resumed, checkpoint_of(first), anew=False)
    assert "has groups of 6 parameters there, and of 1+1+1+1+1+... here: it starts with fresh" in note
    assert (
        len(resumed.optim_wrapper.optimizer.param_groups) == 6 and not resumed.optim_wrapper.optimizer.state
    )


def built_with(optimizer):
    runner = built()
    runner.optim_wrapper = OptimWrapper(optimizer)
    runner.param_schedulers = [
        PARAM_SCHEDULERS.build(dict(one, optimizer=runner.optim_wrapper)) for one in CHAIN
    ]
    return runner


@pytest.mark.parametrize("at", [2, 6])
def test_a_longer_training_extends_the_schedule_at_its_end_and_no_warm_up(at, caplog):
    """From the rate at which it goes on, the last schedule falls to its end; a warm-up stays as it was."""
    longer = 24
    first = built()
    trained(first, at)
    scaled = (dict(CHAIN[0], end=2 * WARM_UP), dict(CHAIN[1], begin=2 * WARM_UP, end=longer))
    resumed = built(chain=scaled, length=longer)
    spans = [span(rate) for rate in all_rates(resumed)]
    as_mmengine_resumes(resumed, checkpoint_of(first), at)
    follow_length(resumed, spans, "a.pth")
    warm_up, poly = all_rates(resumed)
    assert (warm_up.begin, warm_up.end) == (0, WARM_UP) and (poly.begin, poly.end) == (WARM_UP, longer)
    assert "LinearLR goes from 0 to 4, as in a.pth, and not from 0 to 8" in caplog.text
    assert "PolyLR ended at 12 in a.pth and now ends at 24" in caplog.text
    rates = [rate for [rate] in trained(resumed, longer - at)]
    start = max(at, WARM_UP)
    last = closed_form(0.5, start)
    for step, rate in enumerate(rates, at):
        expected = closed_form(0.5, step)
        if step > start:  # from where it was, over the steps that are left
            left = 1 - (step - start) / (longer - 1 - start)
            expected = (last - ETA) * left**POWER + ETA
        assert rate == pytest.approx(expected, rel=1e-9), step
    assert rates[-1] == pytest.approx(ETA)


@pytest.mark.parametrize(("t_max", "expected"), [(None, 24), (5, 5)])
def test_a_cosine_is_as_long_as_it_was_made(t_max, expected):
    chain = (dict(type="CosineAnnealingLR", T_max=t_max or LENGTH, begin=0, end=LENGTH, by_epoch=False),)
    first = built(chain=chain)
    trained(first, 3)
    resumed = built(chain=(dict(chain[0], end=24, T_max=t_max or 24),), length=24)
    spans = [span(rate) for rate in all_rates(resumed)]
    as_mmengine_resumes(resumed, checkpoint_of(first), 3)
    follow_length(resumed, spans, "a.pth")
    [rate] = all_rates(resumed)
    assert (rate.begin, rate.end, rate.T_max) == (0, 24, expected)


def test_a_training_that_was_continued_for_longer_is_resumed_again(caplog):
    """Its schedules are no longer those that its config builds, and go on as they are."""
    resumed = built(chain=(CHAIN[0], dict(CHAIN[1], end=24)), length=24)
    trained(resumed, 7)
    again = built(chain=(dict(CHAIN[0], end=8), dict(CHAIN[1], begin=8, end=24)), length=24)
    spans = [span(rate) for rate in all_rates(again)]
    as_mmengine_resumes(again, checkpoint_of(resumed), 7)
    follow_length(again, spans, "a.pth")
    assert [span(rate) for rate in all_rates(again)] == [span(rate) for rate in all_rates(resumed)]
    assert "now ends at" not in caplog.text and "PolyLR goes from 4 to 24, as in a.pth" in caplog.text


OPTIMIZER_CLASSES = [
    one
    for one in vars(torch.optim).values()
    if inspect.isclass(one) and issubclass(one, torch.optim.Optimizer) and one is not torch.optim.Optimizer
]


@pytest.mark.parametrize("kind", OPTIMIZER_CLASSES, ids=lambda kind: kind.__name__)
def test_what_an_optimiser_has_written_fits_it(kind, tmp_path):
    """Every one of torch's: one that is refused by mistake could not be resumed at all."""
    if kind.__name__ in ("SparseAdam", "Muon"):  # for other gradients, and for matrices alone
        parameters = [nn.Parameter(torch.ones(4, 3))]
    else:
        parameters = list(network().parameters())
    options = {"lr": 0.01, **({"momentum": 0.9} if kind.__name__ in ("SGD", "RMSprop") else {})}

    def build():
        return SimpleNamespace(
            optim_wrapper=OptimWrapper(kind(copy.deepcopy(parameters), **options)), param_schedulers=None
        )

    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
        if kind.__name__ == "SparseAdam":
            parameter.grad = parameter.grad.to_sparse()
    first = kind(parameters, **options)
    first.step(*([lambda: torch.tensor(1.0)] if kind.__name__ == "LBFGS" else []))
    torch.save(OptimWrapper(first).state_dict(), tmp_path / "state.pth")
    state = torch.load(tmp_path / "state.pth")
    resumed = build()
    check_states(resumed, {"optimizer": state}, "a.pth")
    resumed.optim_wrapper.load_state_dict(state)


def replaced(state, *place, value):
    node = state
    for key in place[:-1]:
        node = node[key]
    if value is DELETED:
        del node[place[-1]]
    else:
        node[place[-1]] = value(node.get(place[-1]) if isinstance(node, dict) else node[place[-1]])
    return state


DELETED = object()
MUTATIONS = {
    "no state": (("optimizer",), lambda v: None, "has no state"),
    "a list": (("optimizer",), lambda v: [v], "has no state"),
    "moments are a list": (("optimizer", "state"), lambda v: list(v), "no dict of dicts"),
    "moments of one are a list": (("optimizer", "state", 0), lambda v: list(v), "no dict of dicts"),
    "moments of a stranger": (("optimizer", "state", 99), lambda v: {}, "in no group: 99"),
    "groups are a dict": (("optimizer", "param_groups"), lambda v: {}, "groups there that are no dicts"),
    "a group too many": (("optimizer", "param_groups"), lambda v: v * 2, "groups of 6+6 parameters there"),
    "a parameter is missing": (
        ("optimizer", "param_groups", 0, "params"),
        lambda v: v[1:],
        "groups of 5 parameters there, and of 6 here",
    ),
    "a parameter twice": (
        ("optimizer", "param_groups", 0, "params"),
        lambda v: [0, *v[:-1]],
        "in two groups",
    ),
    "numbers are texts": (
        ("optimizer", "param_groups", 0, "params"),
        lambda v: [str(one) for one in v],
        "without the numbers",
    ),
    "no members": (("optimizer", "param_groups", 0, "params"), DELETED, "without the numbers"),
    "a rate of text": (("optimizer", "param_groups", 0, "lr"), str, "settings there that are none: lr"),
    "a rate of NaN": (("optimizer", "param_groups", 0, "lr"), lambda v: float("nan"), "none: lr"),
    "no rate": (("optimizer", "param_groups", 0, "lr"), DELETED, "has no lr there"),
    "no betas": (("optimizer", "param_groups", 0, "betas"), DELETED, "has no betas there"),
    "one beta": (("optimizer", "param_groups", 0, "betas"), lambda v: v[:1], "none: betas"),
    "another shape": (("optimizer", "state", 0, "exp_avg"), lambda v: v[:1], "exp_avg there for parameter 0"),
    "transposed": (("optimizer", "state", 4, "exp_avg"), lambda v: v.mT.transpose(0, 1), "for parameter 4"),
    "NaN": (("optimizer", "state", 1, "exp_avg_sq"), lambda v: v / 0 * 0, "exp_avg_sq there for parameter 1"),
    "integers": (("optimizer", "state", 1, "exp_avg"), lambda v: v.long(), "not finite numbers"),
    "complex": (("optimizer", "state", 1, "exp_avg"), lambda v: v + 0j, "not finite numbers"),
    "sparse": (("optimizer", "state", 1, "exp_avg"), lambda v: v.to_sparse(), "not finite numbers"),
    "a text": (("optimizer", "state", 1, "exp_avg"), str, "not finite numbers"),
    "a step of text": (("optimizer", "state", 1, "step"), str, "step there for parameter 1"),
    "no step": (("optimizer", "state", 1, "step"), DELETED, "keeps step, exp_avg, exp_avg_sq"),
    "schedules are a dict": (("param_schedulers",), lambda v: {}, "no list of dicts"),
    "a schedule is a list": (("param_schedulers", 0), lambda v: [], "no list of dicts"),
    "a schedule too few": (("param_schedulers",), lambda v: v[:1], "there are 1 schedules, and here 2"),
    "a step of a schedule is text": (("param_schedulers", 1, "last_step"), str, "PolyLR has no or another"),
    "a power is NaN": (("param_schedulers", 1, "power"), lambda v: float("nan"), "kind of power"),
    "a step is None": (("param_schedulers", 1, "_global_step"), lambda v: None, "kind of _global_step"),
    "a switch of text": (("optimizer", "param_groups", 0, "foreach"), lambda v: "no", "none: foreach"),
    "no base": (("param_schedulers", 0, "base_values"), DELETED, "LinearLR has no or another kind of base"),
    "bases of others": (("param_schedulers", 0, "base_values"), lambda v: v * 3, "kind of base_values"),
}


@pytest.fixture(scope="module")
def adam():
    runner = built_with(torch.optim.AdamW(network().parameters(), lr=0.2))
    runner.optim_wrapper.parameters = list(runner.optim_wrapper.param_groups[0]["params"])
    trained(runner, 2)
    return runner


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_state_that_does_not_fit_is_one_message(adam, mutation):
    place, value, message = MUTATIONS[mutation]
    checkpoint = checkpoint_of(adam)
    check_states(adam, checkpoint, "a.pth")
    checkpoint = replaced(checkpoint, *place, value=value)
    with pytest.raises(UserError) as raised:
        check_states(adam, checkpoint, "a.pth")
    told = str(raised.value)
    assert told.startswith("a.pth cannot be resumed from, its states do not fit: ") and "\n" not in told
    assert message in told and "load_from=a.pth" in told


def test_states_of_several_optimisers_are_named(adam):
    runner = built(several=True)
    trained(runner, 1)
    checkpoint = checkpoint_of(runner)
    check_states(runner, checkpoint, "a.pth")
    del checkpoint["optimizer"]["two"]
    checkpoint["optimizer"]["one"]["state"][0]["momentum_buffer"] = torch.ones(1)
    checkpoint["param_schedulers"]["three"] = checkpoint["param_schedulers"].pop("two")
    with pytest.raises(UserError) as raised:
        check_states(runner, checkpoint, "a.pth")
    for part in (
        "the optimiser one has a momentum_buffer there for parameter 0",
        "the optimiser two has no state there",
        "there are schedules for one, three, and here for one, two",
    ):
        assert part in str(raised.value)


def test_what_older_versions_of_pytorch_wrote_fits(adam):
    """Steps as whole numbers, and groups without settings that came later."""
    checkpoint = checkpoint_of(adam)
    for one in checkpoint["optimizer"]["state"].values():
        one["step"] = int(one["step"])
    for key in ("foreach", "capturable", "differentiable", "fused", "maximize", "amsgrad"):
        del checkpoint["optimizer"]["param_groups"][0][key]
    check_states(adam, checkpoint, "a.pth")
    runner = built({"momentum": 0})
    trained(runner, 1)
    checkpoint = checkpoint_of(runner)
    checkpoint["optimizer"]["state"] = {number: {"momentum_buffer": None} for number in range(6)}
    check_states(runner, checkpoint, "a.pth")


def test_moments_that_are_missing_are_said(adam):
    checkpoint = checkpoint_of(adam)
    assert without_moments(adam, checkpoint) == []
    moments = checkpoint["optimizer"]["state"]
    del moments[0]
    moments[1] = {}
    check_states(adam, checkpoint, "a.pth")
    [note] = without_moments(adam, checkpoint)
    assert note == ("the optimiser has no moments of 2 of 6 parameters there: they start with fresh ones")
    frozen = built()
    frozen.optim_wrapper.parameters[0].requires_grad_(False)
    assert " of 5 of 6 parameters" in without_moments(frozen, checkpoint_of(frozen))[0]
    plain = built({"momentum": 0})
    assert without_moments(plain, checkpoint_of(plain)) == []  # it keeps none
