"""What does not repeat to the bit is refused with one message."""

import pytest
import torch

from danseg.engine.determinism import explaining_determinism
from danseg.engine.runner import DansegRunner
from danseg.errors import UserError

NO_FORM = (
    "cumsum_cuda_kernel does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation"
)
STARTED = (
    "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
    "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it "
    "uses CuBLAS and you have CUDA >= 10.2."
)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (NO_FORM, "the network needs cumsum_cuda_kernel, .* leave out --deterministic"),
        (STARTED, "set CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment before Python starts"),
    ],
)
def test_a_training_says_what_does_not_repeat(tiny, told, message):
    def refuse(*args):
        raise RuntimeError(told)

    runner = DansegRunner.from_cfg(tiny())
    runner.model.decode_head.conv_seg.forward = refuse
    with pytest.raises(UserError, match=message):
        runner.train()


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="something else"), explaining_determinism():
        raise RuntimeError("something else")


def test_pytorch_still_says_it_so(device):
    """The concatenation form's prefix sums have no deterministic form on a GPU."""
    if device.type == "cpu":  # CPU operators that refuse are few: this one does in every release
        values = torch.zeros(4)
        indices = torch.zeros(1, dtype=torch.int64)
        work = lambda: values.put_(indices, torch.ones(1), accumulate=False)  # noqa: E731
    else:
        work = lambda: torch.ones(4, device=device).cumsum(0)  # noqa: E731
    try:
        torch.use_deterministic_algorithms(True)
        with (
            pytest.raises(UserError, match=r"the network needs (put_|cumsum)\w*, which"),
            explaining_determinism(),
        ):
            work()
    finally:
        torch.use_deterministic_algorithms(False)
