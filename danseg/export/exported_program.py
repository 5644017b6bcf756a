"""A network as a program of ``torch.export``: the operators that it calls, for a range of sizes; ``.pt2``."""

import io
import math
import warnings
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram, export, save

from danseg.export.description import FILE
from danseg.export.formats import Task


def write(task: Task, part: Path) -> int:
    """Write a ``.pt2``; see :meth:`danseg.export.formats.Format.write`."""
    program, smallest = captured(task)
    # Each operator says where in the sources it was called, with the paths of this machine.
    for module in program.graph_module.modules():
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)
    program.example_inputs = None  # which would be as large as the pictures
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights in another order of memory, which are saved as they are
        save(program, content, extra_files={FILE: task.description.to_json()})
    part.write_bytes(content.getvalue())
    return smallest


def captured(task: Task) -> tuple[ExportedProgram, int]:
    """The program of a network, and the smallest height and width that it takes."""
    layout, size = task.description.input.layout, task.description.size
    free = {
        axis: Dim.DYNAMIC
        for axis, length in enumerate(
            {"N": size.batch, "H": size.height, "W": size.width}.get(x, 0) for x in layout
        )
        if length is None
    }
    with torch.no_grad():
        program = export(task.network, (task.example,), dynamic_shapes=(free,), strict=False)
    [name] = program.graph_signature.user_inputs
    taken = next(node for node in program.graph.nodes if node.name == name)
    shape = taken.meta["val"].shape
    smallest = 1
    for axis in free:
        if layout[axis] != "N":
            smallest = max(smallest, _lower(program, shape[axis]))
    return program, smallest


def _lower(program: ExportedProgram, length: "torch.SymInt") -> int:
    bounds = program.range_constraints.get(length.node.expr)
    return 1 if bounds is None or math.isinf(float(bounds.lower)) else int(bounds.lower)
