"""Files of the kinds that danseg exports, written by the libraries themselves from any module."""

import warnings
from pathlib import Path

import onnx
import openvino
import torch
from mmseg.models import BaseSegmentor
from torch import Tensor, nn
from torch.export import Dim

from danseg.engine.config.stored_config import config_to_text
from danseg.export.deployed_network import DeployedNetwork
from danseg.export.description import FILE, KEY, Checkpoint, Description, Input, Output, Size
from danseg.export.normalisation import normalisation
from danseg.export.sessions import openvino_core

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
        graph = path if path.suffix == ".onnx" else path.with_name(f"{path.name}.onnx")
        _write_onnx(graph, network, example, free, description)
        if path.suffix == ".xml":
            model = openvino_core().read_model(graph)
            if text is not None:
                model.set_rt_info(text, KEY)
            openvino.save_model(model, path, compress_to_fp16=False)
            graph.unlink()
    return path


def write_model(
    path: Path,
    model: BaseSegmentor,
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    with_preprocessing: bool = False,
    labels: bool = False,
    precision: str = "float32",
) -> Path:
    """Write a model in eval mode with all that danseg says of it, for any size or for one.

    Args:
        path: the file.
        model: from ``load_model``.
        size: height and width of the inputs; None for any.
        batch: how many pictures it takes together; None for any.
        with_preprocessing: it takes pictures (B, H, W, C) uint8, red first.
        labels: it gives labels.
        precision: what it says of itself, of a model that computes so.
    """
    does = normalisation(model)
    network = DeployedNetwork(model, does if with_preprocessing else None, labels)
    height, width = size or (40, 48)
    shape = (batch or 2, does.bands, height, width)
    taken = Input("image", "float32", "NCHW", does.channels, does.mean, does.std)
    if with_preprocessing:
        taken = Input("image", "uint8", "NHWC", "RGB" if does.channels else None)
        shape = (batch or 2, height, width, does.bands)
    description = described(
        classes=tuple(model.dataset_meta["classes"]),
        colours=tuple(tuple(one) for one in model.dataset_meta["palette"]),
        config=config_to_text(model.cfg),
        precision=precision,
        input=taken,
        size=Size(batch, *(size or (None, None))),
        output=network.output,
    )
    example = torch.zeros(shape, dtype=getattr(torch, taken.dtype))
    with torch.no_grad():
        return write(path, network, example, description)


def _write_onnx(
    path: Path, network: nn.Module, example: Tensor, free: dict[int, str], description: Description | None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the older exporter, about itself
        torch.onnx.export(
            network,
            (example,),
            str(path),
            input_names=["image"],
            output_names=[description.output.name if description else "output"],
            dynamic_axes={"image": free} if free else None,
            dynamo=False,
        )
    if description is not None:
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {KEY: description.to_json()})
        onnx.save(model, path)
