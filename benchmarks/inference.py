"""Compare danseg's whole-model inference with mmseg's: image to labels, logits to labels, validation, memory.

    python -m benchmarks.inference                                  # ten minutes; 11 GiB for mmseg's part
    python -m benchmarks.inference --cases validation               # one part
    python -m benchmarks.inference --device cuda                    # a GPU: many ways, in 80 seconds
    python -m benchmarks.inference --quick                          # a small network, a minute
    python -m benchmarks.inference --markdown benchmarks/results/NAME.json

mmseg's side is its own DAHead with the same weights in float32, and its own ``test_step``; for "validation",
danseg's heads in mmseg's EncoderDecoder. What is measured, and why so: docs/performance.md. A GPU has a plan
of its own, benchmarks/inference_gpu.py.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import report, ways
from benchmarks.command import Job, carry_out, set_up
from benchmarks.measure import available_memory, product_rate
from benchmarks.networks import DANSEG, MMSEG, NUM_CLASSES, Network, segmentor
from benchmarks.report import Promise, Row, size_name
from benchmarks.ways import Rates
from danseg.engine.measuring import MeasurementError, alternate, extra_peak, in_subprocess, process_peak
from danseg.errors import UserError, command_line
from danseg.ops import upsampled_argmax
from danseg.tool_arguments import parse_count

Size = tuple[int, int]
THEIRS, PRECISIONS = "mmseg", ("float32", "bfloat16")
WARM_UP_SIZE = (64, 128)
STRIDE = 8  # of the logits in the image
# Test modes of the configs for Cityscapes: crops of 512x1024, and of 769x769.
TEST_MODES = {
    "whole frames": dict(mode="whole"),
    "windows": dict(mode="slide", crop_size=(769, 769), stride=(513, 513)),
}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        network: from image to labels in each of ``images`` sizes.
        labels: pairs of a number of classes and the sizes of labels to make.
        validated: pairs of a network and the test mode in which it validates a frame of ``frame_size``.
        process: the network that a process of its own runs on an image of ``process_size``.
    """

    network: Network
    images: Sequence[Size]
    labels: Sequence[tuple[int, Sequence[Size]]]
    validated: Sequence[tuple[Network, str]]
    frame_size: Size
    process: Network
    process_size: Size


FULL = Plan(
    network=Network(50),
    images=[(256, 512), (512, 1024)],
    # A frame of Cityscapes, and one of ADE20K with its short side at 512.
    labels=[(19, [(512, 1024), (1024, 2048)]), (150, [(512, 683)])],
    # The narrow one for what the backbone of the other hides.
    validated=[
        (Network(50), "whole frames"),
        (Network(50, width=16), "whole frames"),
        (Network(50, width=16), "windows"),
    ],
    frame_size=(1024, 2048),
    process=Network(101),
    process_size=(1024, 2048),
)
QUICK = Plan(
    network=Network(50, width=16),
    images=[(128, 256)],
    labels=[(19, [(256, 512)]), (150, [(128, 171)])],
    validated=[(Network(50, width=16), "windows")],
    frame_size=(256, 512),
    process=Network(50, width=16),
    process_size=(128, 256),
)
IMAGE, LABELS, PROCESS = "image to labels", "logits to labels", "whole process"
VALIDATION = "validation"
CASES = (IMAGE, LABELS, VALIDATION, PROCESS)
# What docs/performance.md promises.
PROMISES = {
    ("DANet-R50, image to labels", "float32", "512x1024"): Promise(time=0.85),
    ("DANet-R50, image to labels", "bfloat16", "512x1024"): Promise(time=0.55),
    (LABELS, "19 classes", "1024x2048"): Promise(time=0.5, memory=0.2),
    (LABELS, "150 classes", "512x683"): Promise(time=0.5, memory=0.2),
    ("DANet-R101, whole process", "float32", "1024x2048"): Promise(memory_bytes=4e9),
}
BFLOAT16_OF_FLOAT32 = 1 / 1.5  # of danseg's own time


def build(network: Network, side: str, device: torch.device) -> nn.Module:
    """One side's model: mmseg's, or danseg's prepared for a precision; equal weights in all."""
    from danseg.apis import prepare_for_inference

    torch.manual_seed(0)
    theirs = settle(segmentor(network, MMSEG))
    if side == THEIRS:
        return theirs.to(device)
    ours = segmentor(network, DANSEG).eval()
    ours.load_state_dict(theirs.state_dict())
    return prepare_for_inference(ours.to(device), precision=side)


@torch.no_grad()
def settle(model: nn.Module) -> nn.Module:
    """Give an untrained model the statistics of its own features, and a part to its attention.

    Blocks add little to what passes by them, as in trained networks; otherwise fifty layers of random
    weights magnify every rounding.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("gamma.scale"):
            parameter.fill_(0.7)
        elif name.endswith("bn3.weight"):
            parameter.fill_(0.2)
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = 1.0
    generator = torch.Generator().manual_seed(2)
    model.train()(torch.randn(2, 3, *WARM_UP_SIZE, generator=generator), mode="tensor")
    return model.eval()


def image_data(size: Size) -> dict:
    """A smooth random image of ``size``, as a pipeline packs it."""
    from mmseg.structures import SegDataSample

    image = smooth(3, size, cell=16)
    image = ((image - image.min()) / (image.max() - image.min()) * 255).byte()
    return dict(inputs=[image], data_samples=[SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))])


def smooth(channels: int, size: Size, cell: int) -> Tensor:
    """Random numbers (channels, *size) that change over ``cell`` positions."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, channels, *(side // cell + 2 for side in size), generator=generator)
    return F.interpolate(coarse, size, mode="bicubic")[0]


@torch.no_grad()
def labels_of(model: nn.Module, data: dict) -> Tensor:
    """(H, W) class ids."""
    return model.test_step(data)[0].pred_sem_seg.data[0]


@torch.no_grad()
def _logits(model: nn.Module, data: dict) -> Tensor:
    out = model(model.data_preprocessor(data, training=False)["inputs"], mode="tensor")
    return out[0] if isinstance(out, (list, tuple)) else out  # mmseg's head gives those of its branches too


def measure_network_memory(network: Network, side: str, size: Size, device_type: str) -> int:
    """Extra peak bytes of one side, from image to labels. Runs in a process of its own."""
    device = torch.device(device_type)
    model = build(network, side, device)
    labels_of(model, image_data(WARM_UP_SIZE))
    data = image_data(size)
    return extra_peak(lambda: labels_of(model, data), device)


def measure_network_time(network: Network, size: Size, device_type: str, repeats: int) -> dict[str, Any]:
    """Every side's rounds, the operations of a pass, the product rate and each precision's difference."""
    device = torch.device(device_type)
    sides = (THEIRS, *PRECISIONS)
    models = {side: build(network, side, device) for side in sides}
    data = image_data(size)
    rate = product_rate(device)
    logits = {side: _logits(model, data) for side, model in models.items()}  # the warm-up, too
    largest = logits[THEIRS].abs().max()
    differences = {
        side: ((logits[side] - logits[THEIRS]).abs().max() / largest).item() for side in PRECISIONS
    }
    with FlopCounterMode(display=False) as operations:
        _logits(models["float32"], data)
    calls = [partial(labels_of, model, data) for model in models.values()]
    rounds = dict(zip(sides, alternate(calls, repeats, device), strict=True))
    return dict(
        rounds=rounds,
        operations=operations.get_total_flops(),
        rate=max(rate, product_rate(device)),
        differences=differences,
    )


def compare_network(network: Network, size: Size, device: torch.device, repeats: int) -> list[Row]:
    """From image to labels: a row for each precision, beside mmseg in float32."""
    memory = {}
    for side in (THEIRS, *PRECISIONS):
        memory[side] = in_subprocess(measure_network_memory, network, side, size, device.type)
    times = in_subprocess(measure_network_time, network, size, device.type, repeats)
    rows = []
    for precision in PRECISIONS:
        row = Row(f"{network.name}, {IMAGE}", precision, size_name(size), math.prod(size))
        _fill(row, times["rounds"][THEIRS], times["rounds"][precision], memory[THEIRS], memory[precision])
        row.max_relative_error = times["differences"][precision]
        rows.append(row)
    rows[0].product_rate = times["rate"]
    rows[0].floor_seconds = times["operations"] / times["rate"]
    share = rows[1].ours_seconds / rows[0].ours_seconds
    verdict = "kept" if share <= BFLOAT16_OF_FLOAT32 else "MISSED"
    rows[1].note = (
        f"{share:.2f} of danseg's own time in float32 ({BFLOAT16_OF_FLOAT32:.2f} at most was promised at "
        f"512x1024, on CPUs with instructions for bfloat16: {verdict})"
    )
    return rows


def _fill(row: Row, theirs: list[float], ours: list[float], their_bytes: int, our_bytes: int) -> None:
    row.theirs_rounds, row.ours_rounds = theirs, ours
    row.theirs_seconds, row.ours_seconds = statistics.median(theirs), statistics.median(ours)
    row.time_ratio = row.ours_seconds / row.theirs_seconds
    row.theirs_extra_bytes, row.ours_extra_bytes = their_bytes, our_bytes
    row.memory_ratio = our_bytes / their_bytes if their_bytes else None


def label_steps(classes: int, size: Size, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """What goes from a head's logits to labels of ``size``, the size of the network's input, on each side."""
    from mmseg.models import EncoderDecoder
    from mmseg.models.decode_heads import FCNHead
    from mmseg.structures import SegDataSample

    logits = smooth(classes, tuple(-(-side // STRIDE) for side in size), cell=4)[None].to(device)
    head = FCNHead(in_channels=4, channels=4, num_classes=classes)
    model = EncoderDecoder.__new__(EncoderDecoder)
    nn.Module.__init__(model)
    model.decode_head, model.align_corners = head, head.align_corners
    meta = dict(ori_shape=size, img_shape=size)

    def theirs() -> Tensor:
        resized = head.predict_by_feat(logits, [meta])
        [result] = model.postprocess_result(resized, [SegDataSample(metainfo=meta)])
        return result.pred_sem_seg.data[0]

    return {THEIRS: theirs, "danseg": lambda: upsampled_argmax(logits, size, through=size)[0]}


def measure_label_memory(classes: int, side: str, size: Size, device_type: str) -> int:
    """Extra peak bytes of one side, from logits to labels. Runs in a process of its own."""
    device = torch.device(device_type)
    label_steps(classes, WARM_UP_SIZE, device)[side]()
    return extra_peak(label_steps(classes, size, device)[side], device)


def measure_label_time(
    classes: int, size: Size, device_type: str, repeats: int
) -> tuple[list[list[float]], float]:
    """The rounds of mmseg and danseg, and the share of pixels whose labels differ."""
    device = torch.device(device_type)
    steps = label_steps(classes, size, device)
    theirs, ours = (step() for step in steps.values())
    different = (theirs != ours).float().mean().item()
    return alternate(list(steps.values()), repeats, device), different


def compare_labels(classes: int, size: Size, device: torch.device, repeats: int) -> list[Row]:
    """From logits to labels: one row."""
    memory = [
        in_subprocess(measure_label_memory, classes, side, size, device.type) for side in (THEIRS, "danseg")
    ]
    rounds, different = in_subprocess(measure_label_time, classes, size, device.type, repeats)
    row = Row(LABELS, f"{classes} classes", size_name(size), math.prod(size))
    _fill(row, *rounds, *memory)
    row.max_relative_error = different
    return [row]


class Validation:
    """A frame that goes through mmengine's validation loop: mmseg's segmentor or danseg's, danseg's heads."""

    def __init__(self, network: Network, side: str, mode: str, device: torch.device) -> None:
        from mmengine.config import ConfigDict
        from mmengine.evaluator import Evaluator
        from mmengine.runner import ValLoop

        torch.manual_seed(0)
        types = (MMSEG[0] if side == THEIRS else DANSEG[0], *DANSEG[1:])
        self.model = settle(segmentor(network, types)).to(device)
        self.model.test_cfg = ConfigDict(TEST_MODES[mode])
        meta = dict(classes=tuple(map(str, range(NUM_CLASSES))))
        # What the loop reads of a runner and of a data loader.
        runner = SimpleNamespace(model=self.model, visualizer=SimpleNamespace(), call_hook=_no_hook)
        loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=meta))
        self.loop = ValLoop(runner, loader, Evaluator(dict(type="ExactIoUMetric")))

    def run(self, data: dict) -> None:
        """Predict a frame and count its pixels, as the loop does with each."""
        self.loop.run_iter(0, data)


def _no_hook(*args: Any, **kwargs: Any) -> None:
    pass


def frame_data(size: Size) -> dict:
    """An image with a label, as the validation's data loader collates them."""
    from mmengine.structures import PixelData

    data = image_data(size)
    label = smooth(NUM_CLASSES, size, cell=64).argmax(0, keepdim=True)
    data["data_samples"][0].gt_sem_seg = PixelData(data=label)
    return data


def measure_validation_memory(network: Network, side: str, mode: str, size: Size, device_type: str) -> int:
    """Extra peak bytes of one side, for a frame. Runs in a process of its own."""
    device = torch.device(device_type)
    validation = Validation(network, side, mode, device)
    validation.run(frame_data(WARM_UP_SIZE))
    data = frame_data(size)
    return extra_peak(lambda: validation.run(data), device)


def measure_validation_time(
    network: Network, mode: str, size: Size, device_type: str, repeats: int
) -> tuple[list[list[float]], float]:
    """The rounds of mmseg and danseg, and the share of pixels whose labels differ."""
    device = torch.device(device_type)
    sides = [Validation(network, side, mode, device) for side in (THEIRS, "danseg")]
    data = frame_data(size)
    theirs, ours = (labels_of(side.model, data) for side in sides)  # the warm-up, too
    different = (theirs != ours).float().mean().item()
    return alternate([partial(side.run, data) for side in sides], repeats, device), different


def compare_validation(
    network: Network, mode: str, size: Size, device: torch.device, repeats: int
) -> list[Row]:
    """A frame through the validation loop: one row."""
    memory = [
        in_subprocess(measure_validation_memory, network, side, mode, size, device.type)
        for side in (THEIRS, "danseg")
    ]
    rounds, different = in_subprocess(measure_validation_time, network, mode, size, device.type, repeats)
    mode = f"{mode}, width {network.width}"
    row = Row(f"{network.name}, {VALIDATION}", mode, size_name(size), math.prod(size))
    _fill(row, *rounds, *memory)
    row.max_relative_error = different
    return [row]


def measure_process(network: Network, side: str, size: Size) -> int:
    """Peak bytes of a process that builds a model and takes one image to labels."""
    labels_of(build(network, side, torch.device("cpu")), image_data(size))
    return process_peak()


def compare_process(network: Network, size: Size) -> list[Row]:
    """The peak of a process, libraries and weights included: a row for each precision."""
    positions = math.prod(size) // STRIDE**2
    needed = 2 * 4 * positions**2 + 3 * 2**30  # mmseg's map before and after its softmax, and the rest
    available = available_memory(torch.device("cpu"))
    theirs, note = None, ""
    if available is None or needed < 0.9 * available:
        try:
            theirs = in_subprocess(measure_process, network, THEIRS, size, fresh=True)
        except MeasurementError as error:
            note = f"mmseg: {error}"
    else:
        note = (
            f"mmseg skipped: it needs about {needed / 2**30:.0f} GiB, {available / 2**30:.0f} are available"
        )
    rows = []
    for precision in PRECISIONS:
        ours = in_subprocess(measure_process, network, precision, size, fresh=True)
        row = Row(f"{network.name}, {PROCESS}", precision, size_name(size), math.prod(size), note=note)
        row.theirs_extra_bytes, row.ours_extra_bytes = theirs, ours
        row.memory_ratio = ours / theirs if theirs else None
        rows.append(row)
    return rows


def jobs(plan: Plan, cases: Sequence[str], device: torch.device, repeats: int) -> list[Job]:
    """What is to be measured."""
    found = []
    if IMAGE in cases:
        for size in plan.images:
            what = f"{plan.network.name}, {size_name(size)}"
            found.append((what, 4.0, partial(compare_network, plan.network, size, device, repeats)))
    if LABELS in cases:
        for classes, sizes in plan.labels:
            for size in sizes:
                what = f"{classes} classes, {size_name(size)}"
                found.append((what, 1.0, partial(compare_labels, classes, size, device, 3 * repeats)))
    if VALIDATION in cases:
        for network, mode in plan.validated:
            what = f"{network.name}, {VALIDATION}, {mode}, width {network.width}"
            compare = partial(compare_validation, network, mode, plan.frame_size, device, repeats)
            found.append((what, network.width / 4, compare))
    if PROCESS in cases and device.type == "cpu":
        what = f"{plan.process.name}, {size_name(plan.process_size)}"
        found.append((what, 4.0, partial(compare_process, plan.process, plan.process_size)))
    return found


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("inference", __doc__.split("\n")[0])
    parser.add_argument(
        "--cases", nargs="+", metavar="CASE", help="parts to measure; a wrong one is told the names"
    )
    parser.add_argument(
        "--seconds", type=parse_count, default=75, help="on a GPU: time to measure in (default: 75)"
    )
    args = parser.parse_args(argv)
    if args.markdown:
        print(ways.stored_markdown(args.markdown, PROMISES))
        return
    device, repeats = set_up(args)
    cases: Sequence[str] = CASES
    if device.type == "cuda":
        from benchmarks import inference_gpu

        cases = inference_gpu.CASES
    unknown = [case for case in args.cases or () if case not in cases]
    if unknown:
        raise UserError(f"--cases on {device.type} are {', '.join(map(repr, cases))}; got {unknown[0]!r}")
    if device.type == "cuda":
        plan, rates = inference_gpu.QUICK if args.quick else inference_gpu.FULL, Rates(device)
        todo = inference_gpu.jobs(plan, device, rates, args.seconds, args.cases or cases)
        suffix = "_quick" if args.quick else ""
        ways.carry_out("inference", todo, device, args.seconds, args.out, rates, suffix)
        return
    todo = jobs(QUICK if args.quick else FULL, args.cases or cases, device, repeats)
    carry_out("inference", todo, PROMISES, args, device, repeats)


if __name__ == "__main__":
    main()
