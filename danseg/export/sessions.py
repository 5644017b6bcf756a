"""Run an exported file: NumPy in, NumPy out, whatever runtime its kind asks for.

ONNX and OpenVINO files hold a graph of declared operators and run no code. What PyTorch writes, ``.pt2`` and
TorchScript's ``.pt``, are programs that PyTorch carries out: open only those that you trust.
"""

import contextlib
import functools
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from danseg.errors import UserError, first_line_of, importing_extra
from danseg.export.description import Description
from danseg.export.read_description import EXPORT, read_description
from danseg.io.source_files import fault

# How the message begins that a runtime is not there.
_RUNS_IN = "exported networks of this kind run in {}, and {}"
# What the runtimes say, and PyTorch's allocators.
_OUT_OF_MEMORY = ("out of memory", "bad_alloc", "bad allocation", "allocate memory", "Failed to allocate")


class NotTakenError(UserError, ValueError):
    """An exported network cannot take an input; the message says what it takes."""


class Session(ABC):
    """An exported network that is open to run.

    Several threads may call it at a time. A copy, and one that is loaded from a pickle, opens the file again.

    Attributes:
        path: its file.
        description: what the file says of itself.
        device: where it computes: "cpu", "cuda", "cuda:1", or OpenVINO's name for a GPU of Intel.
        channels: of its input; None if the file does not tell, whose runtime then notices itself.
        opened_with: the arguments of :func:`open_session`.
    """

    path: Path
    description: Description
    device: str
    channels: int | None = None
    opened_with: tuple[Path, str | None, int | None]

    def __init__(self, path: Path, description: Description) -> None:
        self.path, self.description = path, description

    def __reduce__(self) -> tuple:
        return _opened_again, self.opened_with

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Run the network.

        Args:
            array: (B, C, H, W) float32 or (B, H, W, C) uint8, as ``description.input`` says. A file for a
                fixed number of pictures takes any number here: they go through it in portions.

        Returns:
            (B, K, h, w) float32 logits, or (B, H, W) labels, as ``description.output`` says.

        Raises:
            NotTakenError: the array has another rank, type or size than the file takes.
            MemoryError: there is too little.
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
            if any(text in str(error) for text in _OUT_OF_MEMORY):
                raise MemoryError(first_line_of(error)) from error
            raise NotTakenError(
                f"{self.path} cannot run on an input of shape {array.shape}: {first_line_of(error)}"
            ) from error

    @abstractmethod
    def _run(self, array: np.ndarray) -> np.ndarray:
        """Run the network on an input that it takes."""

    def _require_taken(self, array: np.ndarray) -> None:
        taken, size = self.description.input, self.description.size
        place = taken.layout.index("C")
        fits = array.ndim == 4 and len(array) and self.channels in (None, array.shape[place])
        if not fits or array.dtype != taken.dtype:
            names = dict(N="B", C=self.channels or "C")
            axes = ", ".join(str(names.get(axis, axis)) for axis in taken.layout)
            raise NotTakenError(
                f"{self.path} takes ({axes}) {taken.dtype}, with B of at least 1; this is {array.shape} "
                f"{array.dtype}"
            )
        height, width = (array.shape[taken.layout.index(axis)] for axis in "HW")
        if size.height not in (None, height) or size.width not in (None, width):
            raise NotTakenError(
                f"{self.path} was exported for inputs of {_named(size.height)} x {_named(size.width)} "
                f"(height x width) alone, and this one has {height} x {width}; export for any size "
                f"({EXPORT} --dynamic), or give pictures that the test pipeline makes so large"
            )


def open_session(
    path: str | os.PathLike, device: str | None = None, *, threads: int | None = None
) -> Session:
    """Open an exported file.

    Args:
        path: an ``.onnx`` for ONNX Runtime, an ``.xml`` for OpenVINO, a ``.pt2`` or ``.pt`` for PyTorch.
        device: "cpu", "cuda" or "cuda:1"; for OpenVINO, "cpu" or "gpu". Default: CUDA if the runtime has it
            and it works, else the CPU.
        threads: how many threads one call uses on a CPU; PyTorch has one number for the whole process.
            Default: ``OMP_NUM_THREADS``, or what the runtime chooses.

    Raises:
        UserError: the file is missing, damaged or of another program, the runtime is not installed, or has no
            provider for the device.
    """
    path = Path(path)
    session = KINDS[path.suffix.lower()](path, read_description(path), device, _threads(threads))
    session.opened_with = (path, device, threads)
    return session


def _opened_again(path: Path, device: str | None, threads: int | None) -> Session:
    return open_session(path, device, threads=threads)


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

    def __init__(self, path: Path, description: Description, device: str | None, threads: int) -> None:
        super().__init__(path, description)
        with importing_extra("export", _RUNS_IN.format("ONNX Runtime", "onnxruntime")):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; the warnings speak of the graph, not of the user's files
        options.intra_op_num_threads = threads
        providers = _providers(onnxruntime.get_available_providers(), device)
        with _readable(path, f"ONNX Runtime {onnxruntime.__version__}"):
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers)
        on_gpu = self._session.get_providers()[0] == _CUDA
        self.device = (device or "cuda") if on_gpu else "cpu"
        if not on_gpu and device not in (None, "cpu"):
            raise UserError(
                f"ONNX Runtime could not start its CUDA provider for {device}; its messages above say which "
                "library is missing; choose the CPU, or install what it needs"
            )
        channels = self._session.get_inputs()[0].shape[self.description.input.layout.index("C")]
        self.channels = channels if isinstance(channels, int) else None

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


_ONE_AT_A_TIME = threading.Lock()


def openvino_core() -> Any:
    """OpenVINO's core, one for the whole process, which stays until its end.

    A core gives the thread that starts it an alternate stack for signals, and puts back the one before when
    it goes. Of two that go in the order in which they came, the second puts back that of the first, which is
    gone, and the next signal (Ctrl-C, the end of a child) ends the process with a segmentation fault.
    """
    with _ONE_AT_A_TIME:
        return _core()


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()


class OpenVinoSession(Session):
    """An ``.xml`` of OpenVINO, with the weights in the ``.bin`` beside it."""

    def __init__(self, path: Path, description: Description, device: str | None, threads: int) -> None:
        super().__init__(path, description)
        with importing_extra("export", _RUNS_IN.format("OpenVINO", "openvino")):
            import openvino
        weights = path.with_suffix(".bin")
        if (why := fault(weights)) is not None:
            raise UserError(
                f"{path} has its weights in {weights.name} beside it, which cannot be read: {why}; copy both "
                "files together"
            )
        core = openvino_core()
        there = [name.lower() for name in core.available_devices]
        self.device = (device or "cpu").lower()
        if self.device not in there:
            raise UserError(
                f"OpenVINO computes on no {device} here, but on {', '.join(there)}; choose one of those "
                "(GPUs are Intel's; for one of NVIDIA export as ONNX)"
            )
        # Without this hint a CPU may compute in bfloat16, and the labels would be others than the network's.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads and self.device == "cpu":
            settings["INFERENCE_NUM_THREADS"] = threads
        with _readable(path, f"OpenVINO {openvino.__version__.partition('-')[0]}"):
            model = core.read_model(path, weights)
            self._network = core.compile_model(model, self.device.upper(), settings)
        channels = model.inputs[0].partial_shape[self.description.input.layout.index("C")]
        self.channels = channels.get_length() if channels.is_static else None
        self._of_thread = threading.local()

    def _run(self, array: np.ndarray) -> np.ndarray:
        if not hasattr(self._of_thread, "request"):  # a request holds one call's numbers
            self._of_thread.request = self._network.create_infer_request()
        return self._of_thread.request.infer([array])[0]


class _TorchSession(Session):
    """A file of PyTorch."""

    def __init__(self, path: Path, description: Description, device: str | None, threads: int) -> None:
        super().__init__(path, description)
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        self.device = device or ("cuda" if gpus else "cpu")
        there = ["cpu", *(["cuda"] if gpus else ()), *(f"cuda:{index}" for index in range(gpus))]
        if self.device not in there:
            raise UserError(f"PyTorch computes on no {device} here, but on {', '.join(there)}; choose one")
        if threads:
            torch.set_num_threads(threads)
        with _readable(path, f"PyTorch {torch.__version__}"):
            self._network = self._opened()

    def _run(self, array: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self._network(torch.from_numpy(array).to(self.device)).cpu().numpy()

    @abstractmethod
    def _opened(self) -> Any:
        """The network as a function of a tensor."""


def _nothing(record: logging.LogRecord) -> bool:
    """A filter that lets no message through."""
    return False


class ExportedProgramSession(_TorchSession):
    """A ``.pt2`` of ``torch.export``."""

    def _opened(self) -> Any:
        import torch
        from torch.export.passes import move_to_device_pass

        logger = logging.getLogger("torch.export")
        logger.addFilter(_nothing)  # it logs a traceback of what it then raises
        try:
            program = torch.export.load(self.path)
        finally:
            logger.removeFilter(_nothing)
        return move_to_device_pass(program, self.device).module()


class TorchScriptSession(_TorchSession):
    """A ``.pt`` of TorchScript."""

    def _opened(self) -> Any:
        import torch

        return torch.jit.load(os.fspath(self.path), self.device).eval()


#: The session of each kind of file, by suffix.
KINDS: dict[str, type] = {
    ".onnx": OnnxSession,
    ".xml": OpenVinoSession,
    ".pt2": ExportedProgramSession,
    ".pt": TorchScriptSession,
}


@contextlib.contextmanager
def _readable(path: Path, runtime: str) -> Iterator[None]:
    """Turn whatever a runtime raises at a file into one message."""
    try:
        yield
    except Exception as error:  # each runtime has its own kinds
        raise UserError(
            f"{path} cannot be opened by {runtime}: it is damaged, or not of its kind "
            f"({first_line_of(error)}); copy it again, or export it again"
        ) from error


def _named(length: int | None) -> str:
    return "any" if length is None else str(length)
