"""A network as ONNX, by way of ``torch.export``."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from danseg.export.description import KEY
from danseg.export.exported_program import captured
from danseg.export.formats import Task
from danseg.version import __version__

#: The version of ONNX's operators.
OPSET = 18
#: Weights of more bytes go into a file of their own beside it: one of ONNX ends at 2 GiB.
INSIDE = 1536 * 2**20
_AXES = {"N": "batch", "H": "height", "W": "width"}


def write(task: Task, part: Path) -> int:
    """Write an ``.onnx``; see :meth:`danseg.export.formats.Format.write`."""
    if task.description.precision != "int8":
        return _write(task, part)
    from danseg.export.quantisation import quantise

    source = part.with_name(f"{part.stem}_float32.onnx")
    smallest = _write(replace(task, description=replace(task.description, precision="float32")), source)
    quantise(source, part, task.samples)
    remove(source)
    return smallest


def remove(source: Path) -> None:
    """Remove a file of ONNX, and what lies beside it."""
    for file in source.parent.glob(f"{source.name}*"):
        file.unlink()


def _write(task: Task, part: Path) -> int:
    import onnx

    model, smallest = _translated(task)
    onnx.helper.set_model_props(model, {KEY: task.description.to_json()})
    beside = sum(len(one.raw_data) for one in model.graph.initializer) > INSIDE
    onnx.save_model(
        model, part, save_as_external_data=beside, location=f"{part.name}.data" if beside else None
    )
    return smallest


def _translated(task: Task) -> tuple[Any, int]:
    """The network as a message of ONNX, and the smallest height and width that it takes."""
    program, smallest = captured(task)
    description = task.description
    free = {
        axis: name
        for axis, name in ((description.input.layout.index(x), name) for x, name in _AXES.items())
        if getattr(description.size, name) is None
    }
    with _quietly():
        found = torch.onnx.export(
            program,
            input_names=[description.input.name],
            output_names=[description.output.name],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert found is not None  # for the type checker: without a path, there is a program
    _without_traces(found.model)
    model = found.model_proto
    _name_axes(model, free)
    model.producer_name, model.producer_version = "danseg", __version__
    return model, smallest


def _without_traces(model: Any) -> None:
    """Drop where in the sources each operator was called: paths of this machine, and most of the bytes."""
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
    model.graph.metadata_props.clear()


def _name_axes(model: Any, free: dict[int, str]) -> None:
    """Call the input's free axes by their names, where the exporter calls them s40 and s73."""
    [taken] = model.graph.input
    dims = taken.type.tensor_type.shape.dim
    given = {dims[axis].dim_param: name for axis, name in free.items()}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in given:
                dim.dim_param = given[dim.dim_param]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter tells of packages that are not there and not needed, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
