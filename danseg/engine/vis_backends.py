"""Back ends of a visualiser whose failures cost a line or a picture, never the training.

mmengine's own stop a training when the disk is full, and leave half a line of JSON, half a picture, or a
file of curves that no longer opens. :func:`dispensable` puts these in their place, under mmengine's names.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.fileio import dump
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend, WandbVisBackend
from mmengine.visualization.vis_backend import BaseVisBackend, force_init_env

from danseg.engine.config.type_names import type_name
from danseg.engine.dispensable import Dispensable
from danseg.io.files import append_whole, make_folder, whole_file
from danseg.io.images import save_image


def dispensable(visualizer: Mapping[str, Any]) -> dict[str, Any]:
    """A visualiser's config with back ends that a training survives; the given one stays as it is."""
    backends = visualizer.get("vis_backends") or []
    backends = [backends] if isinstance(backends, (Mapping, BaseVisBackend)) else backends
    return {**visualizer, "vis_backends": [_wrapped(one) for one in backends]}


def _wrapped(backend: Mapping[str, Any] | BaseVisBackend) -> dict[str, Any]:
    if not isinstance(backend, Mapping):
        return {"type": DispensableVisBackend, "backend": backend, "name": type(backend).__name__}
    inner = dict(backend)
    name = inner.pop("name", None) or type_name(inner)
    inner["type"] = _WHOLE.get(inner["type"], inner["type"])
    return {"type": DispensableVisBackend, "backend": inner, "name": name}


class DispensableVisBackend(BaseVisBackend):
    """Passes everything on to another back end, and goes on if that cannot write.

    Args:
        backend: the other one, or its config.
        save_dir: its folder, unless the config names one.
    """

    def __init__(self, backend: Mapping[str, Any] | BaseVisBackend, save_dir: str = "") -> None:
        if isinstance(backend, Mapping):
            backend = VISBACKENDS.build({"save_dir": save_dir, **backend})
        self.backend = backend
        self._writing = Dispensable(type(backend).__name__.removeprefix("Whole"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["backend"], name)

    @property
    def experiment(self) -> Any:
        return self.backend.experiment

    def _init_env(self) -> None:
        """Nothing: the other back end prepares itself."""

    def add_config(self, *args: Any, **kwargs: Any) -> None:
        with self._writing():
            self.backend.add_config(*args, **kwargs)

    def add_graph(self, *args: Any, **kwargs: Any) -> None:
        with self._writing():
            self.backend.add_graph(*args, **kwargs)

    def add_image(self, *args: Any, **kwargs: Any) -> None:
        with self._writing():
            self.backend.add_image(*args, **kwargs)

    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        with self._writing():
            self.backend.add_scalar(*args, **kwargs)

    def add_scalars(self, *args: Any, **kwargs: Any) -> None:
        with self._writing():
            self.backend.add_scalars(*args, **kwargs)

    def close(self) -> None:
        with self._writing():
            self.backend.close()


class WholeLocalVisBackend(LocalVisBackend):
    """mmengine's files of scalars, config and pictures, each line and each file whole."""

    def _dump(self, value_dict: dict, file_path: str, file_format: str) -> None:
        append_whole(file_path, (dump(value_dict, file_format=file_format) + "\n").encode())

    @force_init_env
    def add_config(self, config: Any, **kwargs: Any) -> None:
        with whole_file(self._config_save_file) as part:
            part.write_text(config.pretty_text, encoding="utf-8")

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        path = Path(self._img_save_dir, f"{name}_{step}.png")
        make_folder(path.parent)
        save_image(image, path)


class WholeTensorboardVisBackend(TensorboardVisBackend):
    """mmengine's curves, each value whole in the file when the call returns.

    TensorBoard's own writer leaves this to a thread. When that fails, it never writes again, and what follows
    half a value in a file cannot be read.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)
        now, host = int(time.time()), socket.gethostname()
        self._events = Path(save_dir, f"events.out.tfevents.{now:010d}.{host}.{os.getpid()}.0")

    def _init_env(self) -> None:
        make_folder(self._save_dir)
        self._tensorboard = _summary_writer(self._events)


class SteppedWandbVisBackend(WandbVisBackend):
    """mmengine's Weights & Biases, with iterations along the axis.

    mmengine leaves the step out, and W&B then counts calls: values of different intervals, and those of a
    resumed training, stand where they do not belong.
    """

    def _init_env(self) -> None:
        super()._init_env()
        self._wandb.define_metric("step")
        self._wandb.define_metric("*", step_metric="step")

    @force_init_env
    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        self._wandb.log({name: value, "step": step}, commit=self._commit)

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: Any = None, **kwargs: Any) -> None:
        self._wandb.log({**scalar_dict, "step": step}, commit=self._commit)

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        self._wandb.log({name: self._wandb.Image(image), "step": step}, commit=self._commit)

    def close(self) -> None:
        if hasattr(self, "_wandb"):
            self._wandb.finish()  # its older name, which mmengine calls, is going


def _summary_writer(path: Path) -> Any:
    """torch's SummaryWriter on a file that gets each event at once."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

    class Appended:
        """What RecordWriter calls a file; it writes a record in one call."""

        def write(self, data: bytes) -> None:
            append_whole(path, data)

    class Events(FileWriter):
        def __init__(self) -> None:
            self._records = RecordWriter(Appended())
            self.add_event(Event(file_version="brain.Event:2"))

        def get_logdir(self) -> str:
            return str(path.parent)

        def add_event(self, event: Any, step: Any = None, walltime: float | None = None) -> None:
            event.wall_time = time.time() if walltime is None else walltime
            if step is not None:
                event.step = int(step)
            self._records.write(event.SerializeToString())

        def flush(self) -> None:
            """Nothing is left to write."""

        close = reopen = flush

    class Writer(SummaryWriter):
        file_writer: Any

        def _get_file_writer(self) -> Events:
            if self.file_writer is None:
                self.file_writer = Events()
                self.all_writers: Any = {self.file_writer.get_logdir(): self.file_writer}
            return self.file_writer

    return Writer(str(path.parent))


_WHOLE = {
    **dict.fromkeys(("LocalVisBackend", "mmengine.LocalVisBackend", LocalVisBackend), WholeLocalVisBackend),
    **dict.fromkeys(
        ("TensorboardVisBackend", "mmengine.TensorboardVisBackend", TensorboardVisBackend),
        WholeTensorboardVisBackend,
    ),
    **dict.fromkeys(("WandbVisBackend", "mmengine.WandbVisBackend", WandbVisBackend), SteppedWandbVisBackend),
}
