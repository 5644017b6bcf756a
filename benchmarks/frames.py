"""A network's ways from frames to labels on a GPU: mmseg's, danseg's, captured, compiled, by windows."""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ways
from benchmarks.cuda_graphs import Graph, with_pools
from benchmarks.inference import Size, settle, smooth
from benchmarks.report import size_name
from benchmarks.ways import FLOAT32, Call, Figure, Precision, Question, Rates
from danseg.errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# A compiled network takes about so long; with less time left, it is not begun.
COMPILING_SECONDS = 40


@dataclass(frozen=True)
class FramePlan:
    """What is measured of networks.

    Attributes:
        networks: leaves of configs/ by name; the first one in all precisions and cases.
        frame: height and width.
        batch: frames at a time, beside one at a time.
        crop, stride: of sliding windows, in pixels.
        tile, overlap: of ``predict_large``, in pixels.
        backend: of ``torch.compile``.
    """

    networks: Sequence[str]
    frame: Size
    batch: int
    crop: int
    stride: int
    tile: int
    overlap: int
    backend: str = "inductor"


class Network:
    """A config's network with settled random weights, in mmseg's form and in danseg's, and its figures."""

    def __init__(self, config: str, plan: FramePlan, device: torch.device) -> None:
        self.name, self.plan, self.device = config.split("_cityscapes")[0], plan, device
        self.config = CONFIGS / f"{config}.py"
        self.ours = cache(self._ours)
        self.theirs = cache(self._theirs)
        self.prepared = cache(self._prepared)
        self.frames = cache(self._frames)
        self.operations = cache(self._operations)
        self.reference = cache(self._reference)

    def _ours(self) -> nn.Module:
        from danseg.apis import load_model

        torch.manual_seed(0)
        model = settle(load_model(self.config, None, "cpu")).to(self.device)
        model.test_cfg.mode = "whole"
        return model

    def _theirs(self) -> nn.Module:
        from danseg.apis.counterpart import counterpart

        model = counterpart(self.ours())
        model.test_cfg.mode = "whole"
        return model

    def _prepared(self, dtype: torch.dtype) -> nn.Module:
        from danseg.apis import prepare_for_inference

        return prepare_for_inference(self.ours(), precision=str(dtype).removeprefix("torch."))

    def _frames(self, batch: int) -> Tensor:
        """Normalised frames (B, 3, H, W); each is the first one, moved."""
        frame = smooth(3, self.plan.frame, cell=16)
        return torch.stack([frame.roll(37 * i, -1) for i in range(batch)]).to(self.device)

    @torch.no_grad()
    def _operations(self) -> float:
        """Of the products and convolutions for one frame."""
        with FlopCounterMode(display=False) as counter:
            self.ours()(self.frames(1), mode="tensor")
        return counter.get_total_flops()

    def _reference(self, batch: int, windows: bool = False) -> Tensor:
        """Labels (B, H, W) in float32, frame by frame."""
        with FLOAT32.on():
            try:
                labels = partial(theirs_labels, self._in_windows(self.theirs(), windows), FLOAT32)
                return torch.cat([labels(frame[None]) for frame in self.frames(batch)]).byte()
            except Exception:  # noqa: BLE001  (its own way's note says why)
                labels = partial(our_labels, self._in_windows(self.prepared(torch.float32), windows))
                return torch.cat([labels(frame[None]) for frame in self.frames(batch)])

    def _in_windows(self, model: nn.Module, windows: bool = True) -> nn.Module:
        """The model, which shares its layers, in another test mode."""
        from mmengine.config import ConfigDict

        if not windows:
            return model
        model = copy.copy(model)
        size, stride = (self.plan.crop,) * 2, (self.plan.stride,) * 2
        model.test_cfg = ConfigDict(mode="slide", crop_size=size, stride=stride)
        return model

    def to_labels(
        self, precision: Precision, batch: int, rates: Rates, windows: bool = False, brief: bool = False
    ) -> list[Figure]:
        """Frames to labels, whole or by windows; ``brief`` leaves out the ways that tell little new."""
        frames = self.frames(batch)

        def theirs() -> Call:
            model = self._in_windows(self.theirs(), windows)
            return lambda: theirs_labels(model, precision, frames)

        def ours() -> Call:
            model = self._in_windows(self.prepared(precision.dtype), windows)
            return lambda: our_labels(model, frames)

        def channels_last() -> Call:
            model = copy.deepcopy(self.prepared(precision.dtype)).to(memory_format=torch.channels_last)
            return lambda: our_labels(model, frames)

        def graph() -> Call:
            model = self._in_windows(self.prepared(precision.dtype), windows)
            return Graph(partial(our_labels, model), frames)

        def to_host() -> Call:
            call = ours()
            return lambda: call().cpu()

        narrow = precision.dtype != torch.float32
        of_all = {
            "mmseg": theirs,
            "danseg": ours,
            "danseg, CUDA graph": graph,
        }
        if not (brief or windows or narrow):
            of_all["danseg, channels last"] = channels_last
        if not (brief or windows) and narrow:
            of_all["danseg, labels on the host"] = to_host
        case = f"frames to labels, windows of {self.plan.crop}" if windows else "frames to labels"
        question = Question(case, self.name, size_name(self.plan.frame), batch, precision.name)
        return with_pools(
            question,
            of_all,
            self.device,
            operations=None if windows else batch * self.operations(),
            rate=rates[precision],
            reference=partial(self.reference, batch, windows),
            within=precision.on(),
            distance=share_of_others,
        )

    def large(self, precision: Precision) -> list[Figure]:
        """From a file to a file of labels."""
        from danseg.apis import predict_large

        def ours() -> Call:
            from PIL import Image

            folder = tempfile.TemporaryDirectory()  # removed with the call that holds it
            source, out = Path(folder.name, "frame.png"), Path(folder.name, "labels.tif")
            frame = smooth(3, self.plan.frame, cell=16).mul(40).add(128).clamp(0, 255).byte()
            Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()).save(source)
            model = self.prepared(precision.dtype)
            tiles = dict(tile=self.plan.tile, overlap=self.plan.overlap)

            def call() -> None:
                predict_large(model, source, Path(folder.name, out.name), overwrite=True, **tiles)

            return call

        case = f"file to file, tiles of {self.plan.tile}"
        question = Question(case, self.name, size_name(self.plan.frame), 1, precision.name)
        return ways.compare(question, {"danseg": ours}, self.device, within=precision.on())

    def compiled(self, precision: Precision, rates: Rates, latest: float, by_hand: bool) -> list[Figure]:
        """Compiled by ``prepare_for_inference`` and captured by hand, or by torch.compile, which captures.

        Args:
            latest: when there is enough time left, by ``time.monotonic``.
            by_hand: which of the two.
        """
        if time.monotonic() > latest:
            raise UserError(f"compiling takes about {COMPILING_SECONDS} s, and fewer are left")
        from danseg.apis import prepare_for_inference

        backend, frames, name = self.plan.backend, self.frames(1), str(precision.dtype).removeprefix("torch.")

        @cache
        def model() -> nn.Module:
            with compiling_by(backend):
                return prepare_for_inference(self.ours(), precision=name, compile=True)

        def reduce_overhead() -> Call:
            made = copy.deepcopy(self.prepared(precision.dtype))
            mode = "reduce-overhead" if backend == "inductor" else None
            for part in (made.backbone, made.decode_head):
                part.forward = torch.compile(part.forward, mode=mode, backend=backend, dynamic=False)
            return lambda: our_labels(made, frames)

        if by_hand:
            of_all: dict[str, Callable[[], Call]] = {
                "danseg, compiled": lambda: partial(our_labels, model(), frames),
                "danseg, compiled, CUDA graph": lambda: Graph(partial(our_labels, model()), frames),
            }
        else:
            of_all = {"danseg, compiled, reduce-overhead": reduce_overhead}
        torch._dynamo.reset()
        question = Question("frames to labels", self.name, size_name(self.plan.frame), 1, precision.name)
        try:
            return with_pools(
                question,
                of_all,
                self.device,
                operations=self.operations(),
                rate=rates[precision],
                reference=partial(self.reference, 1),
                within=precision.on(),
                distance=share_of_others,
            )
        finally:
            torch._dynamo.reset()


@contextmanager
def compiling_by(backend: str) -> Iterator[None]:
    """Let ``torch.compile`` take a back end where the caller names none."""
    real = torch.compile
    torch.compile = partial(real, backend=backend)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = real


def _samples(batch: int, size: Sequence[int]) -> list:
    from mmseg.structures import SegDataSample

    return [SegDataSample(metainfo=dict(ori_shape=tuple(size), img_shape=tuple(size))) for _ in range(batch)]


@torch.no_grad()
def theirs_labels(model: nn.Module, precision: Precision, frames: Tensor) -> Tensor:
    """Labels (B, H, W) as mmseg computes them, under autocast in 16 bits."""
    samples = _samples(len(frames), frames.shape[2:])
    narrow = precision.dtype != torch.float32
    with torch.autocast(frames.device.type, precision.dtype if narrow else None, enabled=narrow):
        return torch.cat([result.pred_sem_seg.data for result in model.predict(frames, samples)])


def our_labels(model: nn.Module, frames: Tensor) -> Tensor:
    """Labels (B, H, W) of danseg's model."""
    from danseg.segmentors import predict_labels

    return torch.stack(predict_labels(model, frames, _samples(len(frames), frames.shape[2:])))


def share_of_others(labels: Tensor, expected: Tensor) -> float:
    """The share of labels that differ."""
    return (labels.to(expected.device) != expected).float().mean().item()
