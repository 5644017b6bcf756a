"""int8: a network in ONNX whose convolutions compute in whole numbers of 8 bits, by ONNX Runtime's quantizer.

Static quantisation: numbers that pass between convolutions are rounded to 256 steps, whose range the calibration
pictures show; weights have a range for each of their output channels. The file says so with the standard's own
operators (a QuantizeLinear and a DequantizeLinear on each rounded tensor), from which ONNX Runtime and OpenVINO
make their kernels of 8 bits.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from danseg.errors import UserError, reason_of
from danseg.export.description import KEY, Description
from danseg.export.read_description import EXPORT, read_description
from danseg.version import __version__

# Products of tensors that all come from the picture: attention. Loops and branches, which are graphs themselves, hold some.
_PRODUCTS = {"MatMul", "Einsum", "Gemm", "Attention"}
_WITH_GRAPHS = {"Loop", "Scan", "If"}
# Operators between a projection and a product, which move, scale, centre or thin out its numbers.
_BETWEEN = {
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather", "Concat", "Expand"),
    *("Pad", "Identity", "Cast", "Mul", "Div", "Sub", "MaxPool", "AveragePool"),
}


def quantise(source: str | os.PathLike, target: str | os.PathLike, samples: Iterable[np.ndarray]) -> None:
    """Write an exported network with convolutions of 8 bits.

    What else there is stays in float32, and so do three kinds of convolutions: the first, which reads the
    picture; those that make what attention's products multiply; and the classifier.

    Args:
        source: an ``.onnx`` in float32 that danseg exported.
        target: the file to write; it says of itself that it is of "int8".
        samples: inputs of the network as its description says, batch by batch: pictures of the training set.

    Raises:
        UserError: the source is no file of ONNX, not danseg's or not in float32; it has no convolution to
            quantise; there are no samples; or the network's numbers for them are not finite.
        ValueError: a sample is not what the network takes.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    source, target = Path(source), Path(target)
    description = read_description(source)
    model = _read(source, description)
    kept = kept_convolutions(model.graph)
    if all(node.name in kept for node in model.graph.node if node.op_type == "Conv"):
        raise UserError(f"{source} has no convolution that may compute in 8 bits; export the network in float32")
    with _quietly():
        quantize_static(
            model,
            target,
            _Reader(description, samples),
            quant_format=QuantFormat.QDQ,
            # With its convolution a ReLU becomes one step, whose 256 values are all positive.
            op_types_to_quantize=["Conv", "Relu"],
            nodes_to_exclude=sorted(kept),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Weights of 7 bits: on CPUs without VNNI, sums of products of 8 bits do not fit into the 16 that
            # instructions have for them, and would be cut off.
            reduce_range=True,
        )
    _finish(target, description)


def kept_convolutions(graph: Any) -> set[str]:
    """Names of the convolutions of a graph of ONNX that stay in float32; see :func:`quantise`."""
    makers = {output: node for node in graph.node for output in node.output}
    fixed = {one.name for one in graph.initializer}
    fixed |= {name for name, node in makers.items() if node.op_type == "Constant"}
    kept = {
        node.name
        for node in graph.node
        if node.op_type == "Conv" and not _convolutions_before(node.input[:1], makers)
    }
    kept |= _convolutions_before([one.name for one in graph.output], makers)
    for node in graph.node:
        operands = {*node.input, *_captured(node)} - fixed
        if node.op_type in _WITH_GRAPHS or node.op_type in _PRODUCTS and len(operands) > 1:
            kept |= _convolutions_before(operands, makers, through=_BETWEEN)
    return kept


def _convolutions_before(names: Iterable[str], makers: dict[str, Any], through: Set[str] = frozenset()) -> set[str]:
    """Names of the last convolutions that tensors come from.

    Args:
        names: of the tensors.
        makers: the node that makes each tensor.
        through: kinds of the nodes that may stand in between; empty: any. What reads a tensor's shape alone is none.
    """
    found, waiting, seen = set(), list(names), set()
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            found.add(node.name)
        elif node.op_type in through or not through and node.op_type != "Shape":
            waiting += [*node.input, *_captured(node)]
    return found


def _captured(node: Any) -> set[str]:
    """What the graphs inside of a loop or a branch read; some of it they have made themselves."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inside = [one for graph in graphs for one in graph.node]
    return {name for one in inside for name in (*one.input, *_captured(one))}


class _Reader:
    """Hands the samples to the quantizer, which asks for one after the other."""

    def __init__(self, description: Description, samples: Iterable[np.ndarray]) -> None:
        self._description, self._samples = description, iter(samples)
        self._count = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        sample = next(self._samples, None)
        if sample is None:
            if not self._count:
                raise UserError(
                    "int8 needs calibration pictures, and there are none: its ranges are those of the pictures of "
                    "the training set (train_dataloader)"
                )
            return None
        self._count += 1
        taken, size = self._description.input, self._description.size
        axes = [{"N": size.batch, "H": size.height, "W": size.width}.get(axis) for axis in taken.layout]
        if (
            sample.dtype != taken.dtype
            or sample.ndim != len(axes)
            or any(axis not in (None, found) for axis, found in zip(axes, sample.shape, strict=True))
        ):
            named = ", ".join(axis if length is None else str(length) for axis, length in zip(taken.layout, axes, strict=True))
            raise ValueError(f"samples must be ({named}) {taken.dtype}, got {sample.shape} {sample.dtype}")
        return {taken.name: sample}


def _read(source: Path, description: Description) -> Any:
    """The message of ONNX in a file whose network can be quantised."""
    import onnx

    if description.precision != "float32":
        raise UserError(
            f"{source} is in {description.precision}, and only a network in float32 can be quantised; export it "
            f"again: {EXPORT} --precision int8"
        )
    try:
        model = onnx.load(source)
    except Exception as error:  # of protocol buffers, whose kinds differ by version
        raise UserError(f"{source} is no file of ONNX ({reason_of(error)}); export it again: {EXPORT}") from error
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"  # by which the quantizer knows it
    return model


def _finish(target: Path, description: Description) -> None:
    """Let the file say what it is now, once all its ranges are known to be numbers."""
    import onnx

    model = onnx.load(target)
    values = {one.name: one for one in model.graph.initializer}
    scales = (
        onnx.numpy_helper.to_array(values[node.input[1]])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    )
    if not all(np.isfinite(scale).all() for scale in scales):
        raise UserError(
            "the network's numbers are not finite for the calibration pictures: it gives no labels for them in "
            "float32 either; look at its weights, and at what its pipeline makes of the training set"
        )
    description = replace(description, precision="int8")
    onnx.helper.set_model_props(model, {KEY: description.to_json()})
    model.producer_name, model.producer_version = "danseg", __version__
    onnx.save_model(model, target)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The quantizer recommends steps that an exported network has behind it."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
