"""A network as OpenVINO's ``.xml``, with its weights in a ``.bin`` beside it, by way of ONNX."""

from pathlib import Path

from torch import Tensor, nn

from danseg.errors import UserError
from danseg.export import onnx_file
from danseg.export.description import KEY, Description


def write(network: nn.Module, example: Tensor, description: Description, part: Path) -> int:
    """Write an ``.xml`` and a ``.bin``; see :meth:`danseg.export.formats.Format.write`."""
    source = part.with_suffix(".onnx")
    smallest = onnx_file.write(network, example, description, source)
    convert(source, description, part)
    for file in part.parent.glob(f"{source.name}*"):
        file.unlink()
    return smallest


def convert(source: Path, description: Description, part: Path) -> None:
    """Write an ``.xml`` and a ``.bin`` of a file of ONNX."""
    import openvino

    model = openvino.convert_model(source)
    model.set_rt_info(description.to_json(), KEY)
    try:
        openvino.save_model(model, part, compress_to_fp16=description.precision == "float16")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"OpenVINO cannot write {part.name} ({reason}); the disk may be full") from error
