"""A head as a network of one input, a network as a file of each format, and the file as a function."""

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


class OneInput(nn.Module):
    """A head as a function of one feature map; of several classifiers, the first, which is the fused one."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out = self.head([x])
        return out[0] if isinstance(out, (tuple, list)) else out


def draw(head: nn.Module) -> None:
    """Draw at random the parameters that start at zero, and the batch statistics."""
    generator = torch.Generator().manual_seed(5)
    for parameter in head.parameters():
        if not parameter.any():
            drawn = torch.randn(parameter.shape, generator=generator) * 0.3 + 0.5
            parameter.data.copy_(drawn if parameter.dim() else torch.tensor(0.7))
    for buffer in head.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)


def program(module: Any, example: Tensor, dynamic: tuple[int, ...]) -> torch.export.ExportedProgram:
    """What torch.export makes of a module; a program stays."""
    if isinstance(module, torch.export.ExportedProgram):
        return module
    return torch.export.export(
        module, (example,), dynamic_shapes=({axis: torch.export.Dim.DYNAMIC for axis in dynamic},)
    )


def _torch_export(module: Any, example: Tensor, path: Path, dynamic: tuple[int, ...]) -> None:
    torch.export.save(program(module, example, dynamic), path)


def _torchscript(module: Any, example: Tensor, path: Path, dynamic: tuple[int, ...]) -> None:
    torch.jit.save(torch.jit.trace(module, (example,), check_trace=False), str(path))


def _onnx(module: Any, example: Tensor, path: Path, dynamic: tuple[int, ...]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its steps
        onnx = torch.onnx.export(program(module, example, dynamic), dynamo=True, verbose=False)
    onnx.save(str(path))


def _older_onnx(module: Any, example: Tensor, path: Path, dynamic: tuple[int, ...]) -> None:
    axes = {axis: f"side{axis}" for axis in dynamic}
    torch.onnx.export(
        module,
        (example,),
        str(path),
        dynamo=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": axes, "y": axes},
    )


#: By format: the ending of its files, and what writes one.
FORMATS: dict[str, tuple[str, Callable[..., None]]] = {
    "torch.export": (".pt2", _torch_export),
    "ONNX": (".onnx", _onnx),
    "ONNX, older exporter": (".onnx", _older_onnx),
    "TorchScript": (".pt", _torchscript),
}


def write(form: str, module: Any, example: Tensor, stem: Path, dynamic: tuple[int, ...]) -> Path:
    """Export a network in eval mode.

    Args:
        form: a key of :data:`FORMATS`.
        module: takes one tensor and gives one. For the first two formats it may be a :func:`program` of it.
        example: what it is exported with.
        stem: the file's path without its ending.
        dynamic: the axes of the input that may have any size in the file.
    """
    ending, exporter = FORMATS[form]
    path = stem.with_name(stem.name + ending)
    with torch.no_grad(), warnings.catch_warnings():
        # The exporters warn of themselves: that they are deprecated, or not yet stable.
        warnings.simplefilter("ignore")
        exporter(module, example, path, dynamic)
    return path


def opened(path: Path) -> Function:
    """A file as a function on CPU tensors: ONNX in ONNX Runtime, on as many threads as PyTorch has."""
    if path.suffix == ".onnx":
        return _in_onnxruntime(path)
    module = torch.export.load(path).module() if path.suffix == ".pt2" else torch.jit.load(str(path))

    def call(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)

    return call


def _in_onnxruntime(path: Path) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors: it warns of its optimiser's choices
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    [name] = [one.name for one in session.get_inputs()]
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])
