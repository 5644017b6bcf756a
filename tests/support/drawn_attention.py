"""The attention modules as the tests take them: drawn at random, on any device, with all their switches."""

import inspect

import torch
from torch import nn

import danseg.attention
from own_test import own_test
from variants import pairs, switches

MODULES = {name: getattr(danseg.attention, name) for name in danseg.attention.__all__}
IN_CHANNELS = 16


def make(
    name: str,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    in_channels: int = IN_CHANNELS,
    **arguments,
) -> nn.Module:
    """The module in evaluation mode, with no parameter at a value that hides what the module does.

    Scales, last layers and biases start at zero, batch statistics at 0 and 1; here they are drawn at random,
    the same numbers for every device.
    """
    torch.manual_seed(0)
    module = MODULES[name](in_channels, **arguments)
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.constant_(parameter, 0.7) if parameter.dim() == 0 else nn.init.normal_(
                parameter, 0.5, 0.3
            )
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return module.to(device, dtype).eval()


def feature_map(
    name: str,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    in_channels: int = IN_CHANNELS,
    sides: tuple[int, int] = (5, 7),
) -> torch.Tensor:
    """An input (batch, in_channels, *sides), or with the number of dimensions that the module takes."""
    size = {1: (sum(sides) - 3,), 2: sides, 3: (2, *sides)}[getattr(MODULES[name], "dims", 2)]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, in_channels, *size, generator=generator, dtype=torch.float64).to(device, dtype)


def variants(name: str) -> list[dict]:
    """Keyword arguments for all pairs of the values of the module's modes and switches."""
    module = MODULES[name]
    needed = getattr(own_test(module), "NEEDED", {})

    def complete(arguments: dict) -> dict:
        beside = [others for switch, others in needed.items() if arguments.get(switch)]
        return dict(arguments, **{key: value for others in beside for key, value in others.items()})

    def build(**arguments: object) -> object:
        return module(IN_CHANNELS, **complete(arguments))

    return [complete(arguments) for arguments in pairs(switches(module, build), build)]


def MODE(variant: tuple[str, dict]) -> tuple[str, object]:
    """What distinguishes the kernels of a variant: the module and its mode, if it has several."""
    name, arguments = variant
    return name, arguments.get("mode")


VARIANTS = [(name, arguments) for name in sorted(MODULES) for arguments in variants(name)]


def takers(name: str) -> list[str]:
    """The module's public methods that take a feature map, ``forward`` among them."""
    found = []
    for method, function in inspect.getmembers(MODULES[name], inspect.isfunction):
        of_danseg = function.__module__.startswith("danseg.")
        if (
            of_danseg
            and not method.startswith("_")
            and list(inspect.signature(function).parameters)[1:2] == ["x"]
            and "out" not in inspect.signature(function).parameters  # what forward has taken and given
        ):
            found.append(method)
    assert "forward" in found
    return found


def call(module: nn.Module, method: str, x: torch.Tensor) -> object:
    """Call a method with a feature map and, where it asks for positions, with the first one."""
    others = (
        [[(0,) * getattr(module, "dims", 2)]]
        if "positions" in inspect.signature(getattr(module, method)).parameters
        else []
    )
    return getattr(module, method)(x, *others)


def with_maps(name: str, arguments: dict) -> list[str]:
    """Those of :func:`takers` that depend on the input: not the map of an average over all positions."""
    averages = arguments.get("pooling_type") == "avg"
    return [method for method in takers(name) if not (averages and method == "attention_map")]
