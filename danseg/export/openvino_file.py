"""A network as OpenVINO's ``.xml``, with its weights in a ``.bin`` beside it, by way of ONNX."""

from pathlib import Path

from danseg.errors import UserError
from danseg.export import onnx_file
from danseg.export.description import KEY, Description
from danseg.export.formats import Task


def write(task: Task, part: Path) -> int:
    """Write an ``.xml`` and a ``.bin``; see :meth:`danseg.export.formats.Format.write`."""
    source = part.with_suffix(".onnx")
    smallest = onnx_file.write(task, source)
    _convert(source, task.description, part)
    onnx_file.remove(source)
    return smallest


def _convert(source: Path, description: Description, part: Path) -> None:
    import openvino

    model = openvino.convert_model(source)
    model.set_rt_info(description.to_json(), KEY)
    try:
        openvino.save_model(model, part, compress_to_fp16=description.precision == "float16")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"OpenVINO cannot write {part.name} ({reason}); the disk may be full") from error
