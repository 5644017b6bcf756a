"""Remember which predictions of an output folder are finished, and what they were made with.

Each process of a run appends to a file of its own in the folder, ``.predicted-0.jsonl`` and so on, once all
outputs of a picture are whole under their names. A run that was stopped therefore goes on where it was: a
file that exists is not taken for finished, only one that is recorded, has the recorded size, and was made
from a picture that has not changed, with the same weights, network and options.
"""

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmseg.models import BaseSegmentor

from danseg.apis.model import tested_dataset
from danseg.apis.sources import CAMERA, Source
from danseg.errors import UserError, not_written, reason_of
from danseg.export.exported_network import is_exported
from danseg.io.files import append_whole, process_of
from danseg.io.processes import alive
from danseg.io.source_files import read_file

_FILES = ".predicted-{}.jsonl"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
Stamp = list[int] | None  # size and time of a file, which tell whether it has changed
Files = Mapping[str, Sequence[Path]]  # what was written, by the kind of output


def settings_of(model: BaseSegmentor, **options: Any) -> dict[str, str]:
    """What decides about predictions: the weights, the network with its pipeline and classes, the options.

    Args:
        model: from :func:`danseg.apis.load_model`.
        options: those that change predictions, by name.
    """
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    # Where an exported file lies, and on which device it runs, decides about nothing; its bytes are a weight.
    built = {**model.cfg.model, "backbone": None} if is_exported(model) else model.cfg.model
    network = [built, tested_dataset(model.cfg)["pipeline"], sorted(model.dataset_meta.items())]
    return dict(
        weights=weights.hexdigest()[:12],
        network=hashlib.sha256(repr(network).encode()).hexdigest()[:12],
        **{name: str(value) for name, value in options.items()},
    )


def stamp(source: Source) -> Stamp:
    """What tells whether a file has changed; None for cameras and what cannot be looked at."""
    if source.kind != CAMERA:
        with contextlib.suppress(OSError, ValueError):
            about = os.stat(source.path)
            return [about.st_size, about.st_mtime_ns]
    return None


class Record:
    """The record of an output folder.

    Args:
        out: the folder.
        settings: from :func:`settings_of`, of the predictions to come.
        process: the number of the process that writes.
    """

    def __init__(self, out: Path, settings: Mapping[str, str], process: int = 0) -> None:
        self.out, self.settings = out, dict(settings)
        self._digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]
        self._file = out / _FILES.format(process)
        self._begun = False
        self._entries: dict[str, dict[str, Any]] = {}
        self._known: dict[str, dict[str, str]] = {}  # settings by digest
        self._writers: set[tuple[str, int]] = set()  # machine and number of each process that wrote here

    def read(self) -> None:
        """Read what is recorded, by all processes of earlier runs.

        Raises:
            UserError: a file of the record cannot be read.
        """
        lines: list[dict[str, Any]] = []
        for path in sorted(self.out.glob(_FILES.format("*"))):
            try:
                lines += _lines(read_file(path))
            except OSError as error:
                raise UserError(
                    f"{path}, the record of what is predicted, cannot be read: {reason_of(error)}; make it "
                    "readable, or name another --out"
                ) from error
        for line in sorted(lines, key=lambda line: line.get("time", 0)):
            with contextlib.suppress(*_UNREADABLE):  # a line of another form, or half of one
                self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        if "knows" in line:
            self._known[line["knows"]] = dict(line["settings"])
            self._writers.add((line["machine"], line["process"]))
            return
        before = self._entries.get(line["name"])
        if before and all(before[key] == line[key] for key in ("input", "settings")):
            line = dict(line, outputs={**before["outputs"], **line["outputs"]})
        self._entries[line["name"]] = line

    def finished(self, source: Source, kinds: Iterable[str]) -> bool:
        """Whether all outputs of these kinds are there, and would be the same if they were made now."""
        entry = self._entries.get(source.name)
        if entry is None or entry["settings"] != self._digest:
            return False
        outputs = entry["outputs"]
        return (
            entry["input"] is not None
            and entry["input"] == stamp(source)
            and all(kind in outputs and self._whole(outputs[kind]) for kind in kinds)
        )

    def _whole(self, files: Mapping[str, int]) -> bool:
        try:
            return all(os.stat(self.out / name).st_size == size for name, size in files.items())
        except (OSError, ValueError):
            return False

    def require_same_settings(self, sources: Sequence[Source]) -> None:
        """Refuse to replace, or to mix, predictions that were made with other settings.

        Raises:
            UserError: outputs of these sources are there, made with other weights or options.
        """
        others = [
            entry["settings"]
            for source in sources
            if (entry := self._entries.get(source.name)) is not None
            and entry["settings"] != self._digest
            and any(self._whole(files) for files in entry["outputs"].values())
        ]
        if not others:
            return
        before = self._known.get(others[0], {})
        keys = sorted(before.keys() | self.settings.keys())
        differing = [
            f"{key} {before.get(key, 'none')}, now {self.settings.get(key, 'none')}"
            for key in keys
            if before.get(key) != self.settings.get(key)
        ]
        raise UserError(
            f"{self.out} holds predictions of {len(others)} of the {len(sources)} that were made with other "
            f"settings ({'; '.join(differing) or 'unknown ones'}); name another --out, or replace them with "
            "--overwrite"
        )

    def begin(self) -> None:
        """Record that this process is about to write.

        Raises:
            UserError: the record cannot be written.
        """
        if not self._begun:
            self._append([])

    def clear_parts(self, sources: Iterable[Source]) -> None:
        """Delete what a process that was killed has left of outputs that it had begun to write.

        A temporary file has the number of its process in its name. It is deleted if the record says that this
        process of this machine wrote here, and if there is no such process any longer.
        """
        posix = os.name == "posix"  # elsewhere it cannot be asked
        ended = {
            number
            for machine, number in self._writers
            if posix and machine == _machine() and not alive(number)
        }
        names = {self.out / source.name for source in sources}
        for folder in (
            {name.parent for name in names} | names if ended else ()
        ):  # frames lie below a video's name
            for part in folder.glob(".*.part*"):
                if process_of(part) in ended:
                    with contextlib.suppress(OSError):
                        part.unlink()

    def forget(self, sources: Iterable[Source]) -> None:
        """Record that the outputs of these sources are finished no longer, before they are made again."""
        lines = [
            self._line(source, None, {})
            for source in sources
            if self._entries.pop(source.name, None) is not None
        ]
        if lines:
            self._append(lines)

    def note(self, source: Source, read_as: Stamp, files: Files) -> None:
        """Record that the outputs of a source are whole.

        Args:
            source: what was predicted.
            read_as: its :func:`stamp` before it was read.
            files: its outputs.

        Raises:
            UserError: the record cannot be written.
        """
        sizes = {
            kind: {path.relative_to(self.out).as_posix(): path.stat().st_size for path in paths}
            for kind, paths in files.items()
        }
        self._append([self._line(source, read_as, sizes)])

    def _line(self, source: Source, read_as: Stamp, outputs: dict[str, dict[str, int]]) -> dict[str, Any]:
        return dict(
            name=source.name, input=read_as, settings=self._digest, outputs=outputs, time=time.time_ns()
        )

    def _append(self, lines: list[dict[str, Any]]) -> None:
        if not self._begun:
            own = dict(machine=_machine(), process=os.getpid())
            lines = [dict(knows=self._digest, settings=self.settings, **own), *lines]
        # Each begins a new line: half a line, which a killed process has left, does not spoil the next one.
        data = "".join(f"\n{json.dumps(line)}" for line in lines).encode()
        try:
            append_whole(self._file, data)
        except OSError as error:
            raise not_written(error, f"cannot write {self._file}") from error
        self._begun = True


def _machine() -> str:
    return platform.node()


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                yield value
