"""int8: a network in ONNX whose convolutions compute in 8 bits, by ONNX Runtime's quantizer.

Static quantisation: numbers that pass between convolutions are rounded to 256 steps, over the range that
they have for the calibration pictures; weights are rounded over a range for each output channel. The file
says so by the standard's own operators, a QuantizeLinear and a DequantizeLinear for what is rounded. Of
these, ONNX Runtime and OpenVINO make their kernels of 8 bits.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from danseg.errors import UserError
from danseg.export.description import KEY, Description
from danseg.export.read_description import EXPORT, read_description
from danseg.version import __version__

# Products of tensors that all come from the picture: attention. Loops and branches may hold some.
_PRODUCTS = {"MatMul", "Einsum", "Gemm", "Attention"}
_WITH_GRAPHS = {"Loop", "Scan", "If"}
# Operators between a projection and a product, which move, scale, centre or thin out its numbers.
_BETWEEN = set(
    "Reshape Transpose Squeeze Unsqueeze Flatten Slice Split Gather Concat Expand "
    "Pad Identity Cast Mul Div Sub MaxPool AveragePool".split()
)


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
    kept = kept_in_float32(model.graph)
    if all(node.name in kept for node in model.graph.node if node.op_type == "Conv"):
        raise UserError(
            f"{source} has no convolution that may compute in 8 bits; export the network in float32"
        )
    try:
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
                # Weights of 7 bits: a CPU without VNNI sums pairs of products in 16 bits, and with weights of
                # 8 bits these sums would be cut off.
                reduce_range=True,
            )
    except AssertionError as error:  # the quantizer's word for a range that is no number
        raise _not_finite() from error
    _finish(target, description)


def kept_in_float32(graph: Any) -> set[str]:
    """Names of the nodes of a graph of ONNX that the quantizer is to leave alone; see :func:`quantise`.

    Of a ReLU before attention's products its convolution alone is quantised: between 8 bits and a product it
    keeps runtimes from multiplying in 8 bits, whose sums over a large frame's positions may not fit into 32.
    """
    makers = {name: node for node in graph.node for name in node.output if name}
    fixed = {one.name for one in graph.initializer}
    fixed |= {name for name, node in makers.items() if node.op_type == "Constant"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kept = {node.name for node in convolutions if not _before(node.input[:1], makers, {"Conv"})}
    kept |= _before([one.name for one in graph.output], makers, {"Conv"})
    for node in graph.node:
        operands = {*node.input, *_captured(node)} - fixed
        if node.op_type in _WITH_GRAPHS or node.op_type in _PRODUCTS and len(operands) > 1:
            kept |= _before(operands, makers, {"Conv", "Relu"}, through=_BETWEEN)
    return kept


def _before(
    tensors: Iterable[str], makers: dict[str, Any], kinds: Set[str], through: Set[str] | None = None
) -> set[str]:
    """Names of the last nodes of some kinds on the way to tensors.

    Args:
        tensors: their names.
        makers: the node that makes each tensor.
        kinds: of the nodes.
        through: kinds of nodes that may follow them. Default: any that reads a tensor's numbers.
    """
    found, waiting, seen = set(), list(tensors), set()
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in kinds:
            found.add(node.name)
        elif node.op_type != "Shape" if through is None else node.op_type in through:
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
        self._taken, self._size = description.input, description.size
        self._samples, self._count = iter(samples), 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        sample = next(self._samples, None)
        if sample is not None:
            self._count += 1
            self._check(sample)
            return {self._taken.name: sample}
        if not self._count:
            raise UserError(
                "int8 needs calibration pictures, and there are none: ranges are those that numbers have for "
                "pictures of the training set (train_dataloader)"
            )
        return None

    def _check(self, sample: np.ndarray) -> None:
        lengths = {"N": self._size.batch, "H": self._size.height, "W": self._size.width}
        wanted = [lengths.get(axis) for axis in self._taken.layout]
        right = sample.ndim == len(wanted) and all(
            length in (None, found) for length, found in zip(wanted, sample.shape, strict=True)
        )
        if not right or sample.dtype != self._taken.dtype or not np.isfinite(sample).all():
            named = ", ".join(str(lengths.get(axis) or axis) for axis in self._taken.layout)
            raise ValueError(
                f"samples must be finite numbers ({named}) of {self._taken.dtype}, got {sample.shape} "
                f"{sample.dtype}"
            )


def _read(source: Path, description: Description) -> Any:
    """The message of ONNX in a file whose network can be quantised."""
    import onnx

    if description.precision != "float32":
        raise UserError(
            f"{source} is in {description.precision}, and only a network in float32 can be quantised; export "
            f"it again: {EXPORT} --precision int8"
        )
    model = onnx.load(source)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"  # by which the quantizer knows it
    return model


def _finish(target: Path, description: Description) -> None:
    """Let the file say what it is now, once all its ranges are known to be numbers."""
    import onnx

    model = onnx.load(target)
    values = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            scale = onnx.numpy_helper.to_array(values[node.input[1]])
            if not np.isfinite(scale).all():
                raise _not_finite()
    description = replace(description, precision="int8")
    del model.metadata_props[:]  # of the quantizer's own
    onnx.helper.set_model_props(model, {KEY: description.to_json()})
    model.producer_name, model.producer_version = "danseg", __version__
    onnx.save_model(model, target)


def _not_finite() -> UserError:
    return UserError(
        "the network's numbers are not finite for the calibration pictures, so it has no labels for them in "
        "float32 either; look at its weights"
    )


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
