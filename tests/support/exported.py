"""Networks as files of every format, run at sizes that they were not exported with."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import exported_files

TRACED = (6, 10)
# Smaller and larger, odd and even, of one image and of three; 17 x 23 positions are more than a block.
OTHERS = [((5, 7), 3), ((17, 23), 1), ((12, 9), 3)]
QUICK = ["TorchScript", "ONNX, older exporter"]
SLOW = [name for name in exported_files.FORMATS if name not in QUICK]  # they take seconds for a network


def differences(
    network: nn.Module,
    feature_map: Callable[[int, tuple[int, int]], Tensor],
    forms: list[str],
    folder: Path,
    sizes: list[tuple[tuple[int, int], int]] = OTHERS,
    traced: tuple[int, int] = TRACED,
) -> dict[tuple, float]:
    """By format, size and batch: the largest difference from the network's outputs, over their largest value.

    Args:
        network: in eval mode.
        feature_map: makes an input of a batch and a size.
        forms: of :data:`benchmarks.exported_files.FORMATS`. The newer two share one export.
        folder: to write files to.
        sizes: sizes and batches to run the files on.
        traced: the size that they are exported with. If no other size is run, they are exported for this one.
    """
    example = feature_map(2, traced)
    any_size = range(2, example.dim()) if any(size != traced for size, _ in sizes) else ()
    dynamic = (0, *any_size)
    source = exported_files.program(network, example, dynamic) if set(forms) <= set(SLOW) else network
    found = {}
    for form in forms:
        run = exported_files.opened(exported_files.write(form, source, example, folder / form, dynamic))
        for size, batch in sizes:
            x = feature_map(batch, size)
            with torch.no_grad():
                wanted = network(x)
            got = run(x)
            assert got.shape == wanted.shape, (form, size, batch)
            found[form, size, batch] = ((got - wanted).abs().max() / wanted.abs().max()).item()
    return found
