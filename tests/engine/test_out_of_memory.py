"""Too little memory is one message that says what to change, in training, in evaluation and in prediction."""

import pytest
import torch

from danseg.engine.config.options import configure_test
from danseg.engine.out_of_memory import explaining_memory, ways_to_train_in_less
from danseg.engine.runner import DansegRunner
from danseg.errors import UserError

# As PyTorch says it.
CUDA = (
    "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which "
    "312.00 MiB is free. Process 7 has 78.80 GiB memory in use. Of the allocated memory 77.01 GiB is "
    "allocated by PyTorch, and 1.02 GiB is reserved by PyTorch but unallocated."
)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError(CUDA),
            "this run needs more memory than the GPU has: 1.50 GiB more, where 312.00 MiB of 79.11 GiB "
            "are free. To need less, do this, or that. What else uses the GPU is listed by nvidia-smi.",
        ),
        (RuntimeError("CUDA error: out of memory"), "than the GPU has. To need"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            "than the GPU has.",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "than the machine has free. To",
        ),
        (MemoryError(), "than the machine has free. To need less, do this, or that."),
    ],
)
def test_the_message_has_the_numbers_and_the_ways_out(error, message):
    with pytest.raises(UserError) as caught, explaining_memory("do this", "that"):
        raise error
    assert message in str(caught.value) and caught.value.__cause__ is error


def test_what_pytorch_says_today_is_understood(device):
    gpu = device.type == "cuda"
    wanted = r"than the GPU has: [\d.]+ \w+ more, where [\d.]+ \w+ of" if gpu else "than the machine has free"
    with pytest.raises(UserError, match=wanted), explaining_memory():
        torch.empty(1 << 50, dtype=torch.uint8, device=device)


def test_other_errors_stay_as_they_are():
    for error in (RuntimeError("CUDA error: device-side assert triggered"), UserError("out of memory")):
        with pytest.raises(type(error)) as caught, explaining_memory("do this"):
            raise error
        assert caught.value is error


def full(*args, **kwargs):
    raise torch.OutOfMemoryError(CUDA)


def test_a_training_says_what_keeps_less(tiny):
    runner = DansegRunner.from_cfg(tiny({"recompute": ["backbone.layer1"]}))
    runner.model.decode_head.conv_seg.forward = full
    with pytest.raises(UserError) as caught:
        runner.train()
    for text in ("batch_size, now 2", "--amp", "recompute, now ['backbone.layer1']", "crop_size", "1.50 GiB"):
        assert text in str(caught.value)


def test_a_training_in_16_bits_of_single_images_is_not_told_to_do_so(tiny):
    options = {"optim_wrapper.type": "BFloat16OptimWrapper", "train_dataloader.batch_size": 1}
    told = " ".join(ways_to_train_in_less(tiny(options)))
    assert "recompute" in told and "--amp" not in told and "batch_size" not in told


@pytest.mark.parametrize("task", ["val", "test"])
def test_an_evaluation_says_what_is_smaller(tiny, monkeypatch, task):
    config = tiny({"train_cfg.max_iters": 1, "train_cfg.val_interval": 1})
    if task == "test":
        configure_test(config, work_dir=config.work_dir)
    runner = DansegRunner.from_cfg(config)
    monkeypatch.setattr(type(runner.model), "predict", full)
    with pytest.raises(UserError, match="mode='slide'") as caught:
        (runner.test if task == "test" else runner.train)()
    assert "accumulative_counts" not in str(caught.value)


def test_a_network_that_does_not_fit_is_told_when_it_is_built(tiny, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(UserError, match=r"than the GPU has: 1.50 GiB more.*nvidia-smi"):
        DansegRunner.from_cfg(tiny())
