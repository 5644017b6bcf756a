"""Files of the kinds that danseg exports, written by the libraries themselves from any module."""

import warnings
from pathlib import Path

import onnx
import openvino
import torch
from torch import Tensor, nn
from torch.export import Dim

from danseg.export.description import FILE, KEY, Checkpoint, Description, Input, Output, Size

SUFFIXES = (".onnx", ".xml", ".pt2", ".pt")


def described(**changes) -> Description:
    """A description of a network of two classes, with some fields changed."""
    fields = dict(
        network="tiny",
        classes=("road", "car"),
        colours=((1, 2, 3), (4, 5, 6)),
        config="model = dict()\n",
        checkpoint=Checkpoint("best.pth", "00" * 32),
        precision="float32",
        input=Input("image", "float32", "NCHW", "RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        size=Size(None, None, None),
        output=Output("logits", "float32"),
    )
    return Description(**{**fields, **changes})


def write(path: Path, network: nn.Module, example: Tensor, description: Description | None) -> Path:
    """Write a network in eval mode, for the sizes that the description names, with or without one."""
    size = description.size if description else Size(None, None, None)
    layout = description.input.layout if description else "NCHW"
    places = {
        layout.index(axis): name for axis, name in zip("NHW", ("batch", "height", "width"), strict=True)
    }
    free = {place: name for place, name in places.items() if getattr(size, name) is None}
    text = description.to_json() if description else None
    extra_files = {} if text is None else {FILE: text}
    if path.suffix == ".pt":
        torch.jit.save(torch.jit.trace(network, example), str(path), _extra_files=extra_files)
    elif path.suffix == ".pt2":
        shapes = ({place: Dim.DYNAMIC for place in free},) if free else None
        torch.export.save(
            torch.export.export(network, (example,), dynamic_shapes=shapes), path, extra_files=extra_files
        )
    else:
        graph = path.with_suffix(".onnx")
        _write_onnx(graph, network, example, free, text)
        if path.suffix == ".xml":
            model = openvino.Core().read_model(graph)
            if text is not None:
                model.set_rt_info(text, KEY)
            openvino.save_model(model, path, compress_to_fp16=False)
            graph.unlink()
    return path


def _write_onnx(
    path: Path, network: nn.Module, example: Tensor, free: dict[int, str], text: str | None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the older exporter, about itself
        torch.onnx.export(
            network,
            (example,),
            str(path),
            input_names=["image"],
            output_names=["output"],
            dynamic_axes={"image": free} if free else None,
            dynamo=False,
        )
    if text is not None:
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {KEY: text})
        onnx.save(model, path)
