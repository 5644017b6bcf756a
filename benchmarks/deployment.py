"""Compare what an exported DANet costs on a CPU: mmseg, danseg, ONNX Runtime, OpenVINO, in 32, 16 and 8 bits.

    python -m benchmarks.deployment                                 # five minutes, 8 GiB
    python -m benchmarks.deployment --cases mmseg "ONNX Runtime, int8"
    python -m benchmarks.deployment --quick                         # a narrow network, half a minute
    python -m benchmarks.deployment --markdown benchmarks/results/NAME.json

All have the same weights and go from the network's input to the head's logits. mmseg's side is its own
DAHead in PyTorch; "plain graph" is that head exported, folded like danseg's. docs/performance_deployment.md
says what is measured, and why.
"""

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import report
from benchmarks.command import carry_out, set_up
from benchmarks.inference import settle, smooth
from benchmarks.networks import DANSEG, MMSEG, NUM_CLASSES, Network, segmentor
from benchmarks.report import Promise, Row, size_name
from danseg.engine.measuring import alternate, extra_peak, in_subprocess
from danseg.errors import UserError, command_line

THEIRS = "mmseg"
CASE = "{network}, input to logits"
FULL = (Network(50), (512, 1024))
QUICK = (Network(50, width=16), (128, 256))
SAMPLES = 2  # of the calibration: what they show decides nothing about the time
CPU = torch.device("cpu")
# Called with an input (B, 3, H, W), it gives logits (B, K, h, w).
Call = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Way:
    """One way to run the network.

    Attributes:
        name: in the tables.
        file: what it reads.
        runtime: opens a file, with some number of threads.
    """

    name: str
    file: str
    runtime: Callable[[Path, int], Call]


def in_pytorch(file: Path, threads: int) -> Call:
    """A network that PyTorch has pickled."""
    from danseg.segmentors.labels import head_logits

    torch.set_num_threads(threads)
    model = torch.load(file, weights_only=False)

    @torch.no_grad()
    def call(image: np.ndarray) -> np.ndarray:
        return head_logits(model, torch.from_numpy(image)).float().numpy()

    return call


def in_onnx_runtime(file: Path, threads: int) -> Call:
    """A file of ONNX."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait for the next call must not take the time of whoever's turn it is.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def in_openvino(file: Path, threads: int, precision: str) -> Call:
    """A file of ONNX, which OpenVINO converts; ``precision`` is what it may compute in."""
    import openvino

    from danseg.export.sessions import openvino_core

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    model = openvino_core().compile_model(openvino.convert_model(file), "CPU", settings)
    request = model.create_infer_request()
    return lambda image: request.infer([image])[0].copy()


PLAIN, EXPORTED, INT8 = "plain.onnx", "danseg.onnx", "int8.onnx"
WAYS = {
    way.name: way
    for way in (
        Way(THEIRS, "mmseg.pickle", in_pytorch),
        Way("danseg, float32", "float32.pickle", in_pytorch),
        Way("danseg, bfloat16", "bfloat16.pickle", in_pytorch),
        Way("ONNX Runtime, plain graph", PLAIN, in_onnx_runtime),
        Way("ONNX Runtime, float32", EXPORTED, in_onnx_runtime),
        Way("OpenVINO, plain graph", PLAIN, partial(in_openvino, precision="f32")),
        Way("OpenVINO, float32", EXPORTED, partial(in_openvino, precision="f32")),
        Way("OpenVINO, bfloat16", EXPORTED, partial(in_openvino, precision="bf16")),
        Way("ONNX Runtime, int8", INT8, in_onnx_runtime),
        Way("OpenVINO, int8", INT8, partial(in_openvino, precision="f32")),
        Way("OpenVINO, int8 and bfloat16", INT8, partial(in_openvino, precision="bf16")),
    )
}
# The exported network in float32 over the plain graph in ONNX Runtime; the fastest in float32 over int8.
OF_PLAIN, INT8_FASTER = 1.0, 2.3


def write_files(folder: str, network: Network, size: tuple[int, int]) -> None:
    """Write what the ways read. Runs in a process of its own."""
    from danseg.apis import prepare_for_inference

    torch.manual_seed(0)
    theirs = settle(segmentor(network, MMSEG))
    ours = segmentor(network, DANSEG).eval()
    ours.load_state_dict(theirs.state_dict())
    path = Path(folder)
    torch.save(theirs, path / "mmseg.pickle")
    prepared = prepare_for_inference(ours)
    torch.save(prepared, path / "float32.pickle")
    torch.save(prepare_for_inference(ours, precision="bfloat16"), path / "bfloat16.pickle")
    del ours
    _export(prepare_for_inference(theirs), path / PLAIN, size)
    _export(prepared, path / EXPORTED, size)
    from danseg.export.quantisation import quantise

    quantise(path / EXPORTED, path / INT8, [image(size, seed) for seed in range(SAMPLES)])


def _export(model: nn.Module, file: Path, size: tuple[int, int]) -> None:
    from danseg.export.deployed_network import DeployedNetwork
    from danseg.export.description import Checkpoint, Description, Input, Size
    from danseg.export.formats import FORMATS, Task

    deployed = DeployedNetwork(model)
    description = Description(
        network=file.stem,
        classes=tuple(map(str, range(NUM_CLASSES))),
        colours=((0, 0, 0),) * NUM_CLASSES,
        config="",
        checkpoint=Checkpoint("random weights", ""),
        precision="float32",
        input=Input("image", "float32", "NCHW", "RGB"),
        size=Size(1, *size),
        output=deployed.output,
    )
    FORMATS["onnx"].write(Task(deployed, torch.zeros(1, 3, *size), description), file)


def image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth random input (1, 3, H, W), moved by ``seed``."""
    return smooth(3, (size[0], size[1] + seed), cell=16)[None, :, :, seed:].contiguous().numpy()


def measure_memory(folder: str, name: str, size: tuple[int, int]) -> int:
    """Bytes that a way takes to load the network and to run it once. Runs in a process of its own."""
    import onnxruntime  # noqa: F401  (neither library is part of the figure)
    import openvino  # noqa: F401

    way = WAYS[name]
    torch.nn.functional.conv2d(torch.zeros(1, 3, 9, 9), torch.zeros(3, 3, 3, 3))  # starts threads
    return extra_peak(lambda: way.runtime(Path(folder, way.file), torch.get_num_threads())(image(size)), CPU)


def measure_time(
    folder: str, names: Sequence[str], size: tuple[int, int], repeats: int
) -> tuple[dict[str, list[float]], dict[str, tuple[float, float]]]:
    """Every way's rounds; its largest difference from the first one's logits, and share of equal labels."""
    threads = torch.get_num_threads()
    calls = {name: WAYS[name].runtime(Path(folder, WAYS[name].file), threads) for name in names}
    given = image(size)
    logits = {name: call(given) for name, call in calls.items()}  # the warm-up, too
    expected = logits[names[0]]
    apart = {
        name: (
            float(np.abs(found - expected).max() / np.abs(expected).max()),
            float((found.argmax(1) == expected.argmax(1)).mean()),
        )
        for name, found in logits.items()
    }
    rounds = alternate([partial(call, given) for call in calls.values()], repeats, CPU)
    return dict(zip(names, rounds, strict=True)), apart


def compare(network: Network, size: tuple[int, int], names: Sequence[str], repeats: int) -> list[Row]:
    """A row for each way but mmseg's, beside mmseg's."""
    with tempfile.TemporaryDirectory() as folder:
        in_subprocess(write_files, folder, network, size)
        memory = {name: in_subprocess(measure_memory, folder, name, size) for name in names}
        rounds, apart = in_subprocess(measure_time, folder, names, size, repeats)
    theirs, rows = statistics.median(rounds[THEIRS]), []
    for name in names[1:]:
        row = Row(CASE.format(network=network.name), name, size_name(size))
        row.theirs_rounds, row.ours_rounds = rounds[THEIRS], rounds[name]
        row.theirs_seconds, row.ours_seconds = theirs, statistics.median(rounds[name])
        row.time_ratio = row.ours_seconds / theirs
        row.theirs_extra_bytes, row.ours_extra_bytes = memory[THEIRS], memory[name]
        row.memory_ratio = memory[name] / memory[THEIRS]
        row.max_relative_error, agreement = apart[name]
        row.note = f"{100 * agreement:.2f} % of the labels are mmseg's" if agreement < 1 else ""
        rows.append(row)
    _judge(rows)
    return rows


def _judge(rows: Sequence[Row]) -> None:
    """Say what was promised between the ways."""
    seconds: dict[str, Any] = {row.mode: row.ours_seconds for row in rows}
    plain = seconds.get("ONNX Runtime, plain graph")
    float32 = [time for name, time in seconds.items() if name.endswith(("float32", "plain graph"))]
    for row in rows:
        said = []
        if row.mode in ("ONNX Runtime, float32", "OpenVINO, float32") and plain:
            share = row.ours_seconds / plain
            verdict = "kept" if share <= OF_PLAIN else "MISSED"
            said = [f"{share:.2f} of the time of the plain graph in ONNX Runtime ({verdict})"]
        elif "int8" in row.mode and float32:
            factor = min(float32) / row.ours_seconds
            verdict = "kept" if factor >= INT8_FASTER else "MISSED"
            said = [
                f"{factor:.2f} times as fast as the fastest in float32 ({INT8_FASTER} promised: {verdict})"
            ]
        row.note = "; ".join([*said, row.note] if row.note else said)


# What docs/performance_deployment.md promises beside mmseg; between the ways, see _judge.
PROMISES = {
    (CASE.format(network="DANet-R50"), name, "512x1024"): Promise(time=most)
    for name, most in {
        "ONNX Runtime, float32": 0.85,
        "ONNX Runtime, int8": 0.4,
        "OpenVINO, int8": 0.4,
    }.items()
}


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the results."""
    parser = report.parser("deployment", __doc__.split("\n")[0])
    parser.add_argument(
        "--cases", nargs="+", metavar="WAY", help="ways to measure; a wrong one is told the names"
    )
    args = parser.parse_args(argv)
    if args.markdown:
        print(report.markdown(report.load(args.markdown), PROMISES))
        return
    unknown = [name for name in args.cases or () if name not in WAYS]
    if unknown:
        raise UserError(f"--cases are {', '.join(map(repr, WAYS))}; got {unknown[0]!r}")
    if args.device == "cuda":
        raise UserError("this benchmark measures CPUs; leave out --device cuda")
    args.device = "cpu"
    device, repeats = set_up(args)
    names = [name for name in WAYS if name == THEIRS or name in (args.cases or WAYS)]
    network, size = QUICK if args.quick else FULL
    what = f"{network.name}, {size_name(size)}, {len(names)} ways"
    todo = [(what, math.prod(size), partial(compare, network, size, names, repeats))]
    carry_out("deployment", todo, PROMISES, args, device, repeats)


if __name__ == "__main__":
    main()
