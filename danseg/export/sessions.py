"""Run an exported file: NumPy in, NumPy out, whatever runtime its kind asks for."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from danseg.errors import UserError, reason_of
from danseg.export.description import KEY, Description
from danseg.io.source_files import fault

# How a network is exported again, for messages.
_EXPORT = "python tools/export.py CONFIG CHECKPOINT"


class NotTakenError(UserError, ValueError):
    """An exported network cannot take an input; the message says what it takes."""


class Session(ABC):
    """An exported network that is open to run.

    Several threads may call it at a time.

    Attributes:
        path: its file.
        description: what the file says of itself.
        device: where it computes: "cpu", "cuda", or OpenVINO's name for a GPU of Intel.
    """

    path: Path
    description: Description
    device: str

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Run the network.

        Args:
            array: (B, C, H, W) float32 or (B, H, W, C) uint8, as ``description.input`` says. A file for a
                fixed number of pictures takes any number here: they go through it in portions.

        Returns:
            (B, K, h, w) float32 logits, or (B, H, W) labels, as ``description.output`` says.

        Raises:
            NotTakenError: the array has another rank, type or size than the file takes.
        """
        self._require_taken(array)
        portion = self.description.size.batch
        if portion is None or portion == len(array):
            return self._ran(array)
        outputs = []
        for start in range(0, len(array), portion):
            part = array[start : start + portion]
            missing = portion - len(part)
            filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            outputs.append(self._ran(filled)[: len(part)])
        return np.concatenate(outputs)

    def _ran(self, array: np.ndarray) -> np.ndarray:
        try:
            return self._run(np.ascontiguousarray(array))
        except Exception as error:  # each runtime has its own kinds
            raise NotTakenError(
                f"{self.path} cannot run on an input of shape {array.shape}: {_first_line(error)}"
            ) from error

    @abstractmethod
    def _run(self, array: np.ndarray) -> np.ndarray:
        """Run the network on an input that it takes."""

    def _require_taken(self, array: np.ndarray) -> None:
        taken, size = self.description.input, self.description.size
        if array.ndim != 4 or not len(array) or array.dtype != taken.dtype:
            axes = ", ".join("B" if axis == "N" else axis for axis in taken.layout)
            raise NotTakenError(
                f"{self.path} takes ({axes}) {taken.dtype}, with B of at least 1; this is {array.shape} "
                f"{array.dtype}"
            )
        height, width = (array.shape[taken.layout.index(axis)] for axis in "HW")
        if size.height not in (None, height) or size.width not in (None, width):
            raise NotTakenError(
                f"{self.path} was exported for inputs of {_named(size.height)} x {_named(size.width)} "
                f"(height x width) alone, and this one has {height} x {width}; export for any size "
                f"({_EXPORT} --dynamic), or give pictures that the test pipeline makes so large"
            )


def open_session(
    path: str | os.PathLike, device: str | None = None, *, threads: int | None = None
) -> Session:
    """Open an exported file.

    Args:
        path: an ``.onnx``, which ONNX Runtime runs.
        device: "cpu", "cuda" or "cuda:1". Default: the GPU if the runtime has a provider for it that works,
            else the CPU.
        threads: how many threads one call uses on a CPU. Default: ``OMP_NUM_THREADS``, or what the runtime
            chooses.

    Raises:
        UserError: the file is missing, damaged or of another program, the runtime is not installed, or has no
            provider for the device.
    """
    path = Path(path)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path} is no exported network; those end in {', '.join(KINDS)}")
    if (why := fault(path)) is not None:
        raise UserError(f"the exported network {path} cannot be read: {why}")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty (0 bytes); writing it was interrupted: export it again")
    return kind(path, device, _threads(threads))


def _threads(asked: int | None) -> int:
    """How many threads to use; 0 leaves it to the runtime."""
    if asked is not None:
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
            raise ValueError(f"threads must be a whole number of at least 1, got {asked!r}")
        return asked
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # OpenMP: one number a level
    return int(first) if first.isdecimal() else 0


class OnnxSession(Session):
    """An ``.onnx`` in ONNX Runtime."""

    def __init__(self, path: Path, device: str | None, threads: int) -> None:
        with _extra("ONNX Runtime", "onnxruntime"):
            import onnxruntime
        self.path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; the warnings speak of the graph, not of the user's files
        options.intra_op_num_threads = threads
        providers = _providers(onnxruntime.get_available_providers(), device)
        with _readable(path, f"ONNX Runtime {onnxruntime.__version__}"):
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers)
        self.device = "cuda" if self._session.get_providers()[0] == _CUDA else "cpu"
        if self.device == "cpu" and device is not None and device.startswith("cuda"):
            raise UserError(
                f"ONNX Runtime could not start its CUDA provider for {device}; its messages above say which "
                "library is missing; choose the CPU, or install what it needs"
            )
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self.description = _description(text, path)

    def _run(self, array: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self.description.input.name: array})[0]


_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def _providers(there: list[str], device: str | None) -> list[Any]:
    if device == "cpu" or device is None and _CUDA not in there:
        return [_CPU]
    kind, _, index = (device or "cuda").partition(":")
    if kind != "cuda" or index and not index.isdecimal():
        raise UserError(f"device {device!r} is none that ONNX Runtime computes on here; choose cpu or cuda")
    if _CUDA not in there:
        raise UserError(
            f"this ONNX Runtime has no provider for {device} (it has {', '.join(there)}); choose the CPU, or "
            "install the one with CUDA in its place: pip uninstall onnxruntime && pip install onnxruntime-gpu"
        )
    return [(_CUDA, {"device_id": int(index or 0)}), _CPU]


#: The session of each kind of file, by suffix.
KINDS: dict[str, type] = {".onnx": OnnxSession}


def _description(text: str | None, path: Path) -> Description:
    if text is None:
        raise UserError(
            f"{path} says nothing of its classes, sizes and config: danseg did not export it, or its end is "
            f"missing; export the network with {_EXPORT}, or copy the file again"
        )
    return Description.from_json(text, path)


@contextlib.contextmanager
def _extra(what: str, package: str) -> Iterator[None]:
    """Import a runtime, or say how to install it."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"exported networks of this kind run in {what}, and {package} cannot be imported ({error}); "
            "install it with pip install 'danseg[export]'"
        ) from error


@contextlib.contextmanager
def _readable(path: Path, runtime: str) -> Iterator[None]:
    """Turn whatever a runtime raises at a file into one message."""
    try:
        yield
    except Exception as error:  # each runtime has its own kinds
        raise UserError(
            f"{path} cannot be opened by {runtime}: it is damaged, or not of its kind "
            f"({_first_line(error)}); copy it again, or export it again"
        ) from error


def _first_line(error: Exception) -> str:
    return (reason_of(error).strip().splitlines() or [type(error).__name__])[0]


def _named(length: int | None) -> str:
    return "any" if length is None else str(length)
