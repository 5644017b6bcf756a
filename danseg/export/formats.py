"""The formats in which a network is exported: names, endings, what each needs, and what writes it."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from danseg.errors import importing_extra

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from danseg.export.description import Description

PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Task:
    """What is written.

    Attributes:
        network: a :class:`~danseg.export.deployed_network.DeployedNetwork`.
        example: an input of it.
        description: goes into the file; its ``size`` says which axes are fixed.
        samples: inputs made of training pictures, for int8.
    """

    network: "nn.Module"
    example: "Tensor"
    description: "Description"
    samples: "Sequence[np.ndarray]" = ()


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: as ``--format`` takes it.
        suffix: of the file.
        title: what to call it in messages.
        writer: module of ``danseg.export`` whose ``write`` writes it.
        packages: what has to be installed to write and to check it.
        precisions: in which precisions it is written; the first is the default.
        compresses: float16 is a matter of how the file stores weights, not of the network.
        beside: name of the file that may lie beside it, made of its own ``{name}`` and ``{stem}``.
    """

    name: str
    suffix: str
    title: str
    writer: str
    packages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32", "float16")
    compresses: bool = False
    beside: str | None = None

    def require_packages(self) -> None:
        """Raise a :class:`UserError` that names what installs a package that is missing."""
        for package in self.packages:
            with importing_extra("export", f"{self.title} needs {package}, which"):
                importlib.import_module(package)

    def files(self, out: Path) -> list[Path]:
        """The file ``out``, and the one that may lie beside it."""
        beside = [] if self.beside is None else [self.beside.format(name=out.name, stem=out.stem)]
        return [out, *map(out.with_name, beside)]

    def write(self, task: Task, part: Path) -> int:
        """Write a network.

        Args:
            task: what is written.
            part: where; its folder is the file's alone.

        Returns:
            The smallest height and width that the file takes.

        Raises:
            Exception: whatever the format's library raises at a network that it cannot write.
        """
        function: Callable = importlib.import_module(f"danseg.export.{self.writer}").write
        return function(task, part)


FORMATS = {
    one.name: one
    for one in (
        Format(
            "onnx",
            ".onnx",
            "ONNX",
            "onnx_file",
            packages=("onnx", "onnxscript", "onnxruntime"),
            precisions=PRECISIONS,
            beside="{name}.data",
        ),
        Format(
            "openvino",
            ".xml",
            "OpenVINO",
            "openvino_file",
            packages=("onnx", "onnxscript", "openvino"),
            precisions=PRECISIONS,
            compresses=True,
            beside="{stem}.bin",
        ),
        Format("torch-export", ".pt2", "torch.export", "exported_program"),
        Format("torchscript", ".pt", "TorchScript", "torchscript_file"),
    )
}
