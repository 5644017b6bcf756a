"""A data worker that stands still or ends is named, with its sample, and ends the run in one line."""

import os
import signal
import sys
import time

import pytest
from torch.utils.data import ConcatDataset, DataLoader, Dataset

import forked
from danseg.engine import data_workers, stalled
from danseg.engine.data_workers import explaining_workers, note_samples, standing_still
from danseg.engine.failing_samples import name_failing_samples
from danseg.engine.stalled import watched
from danseg.errors import UserError
from danseg.io.processes import alive

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
PATIENCE = 0.4  # seconds


class Samples(Dataset):
    """Eight samples, with something that happens while one of them is prepared."""

    def __init__(self, happens=lambda: None, at=5):
        self.happens, self.at = happens, at

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.prepare_data(index)

    def prepare_data(self, index):
        if index == self.at:
            self.happens()
        return index

    def get_data_info(self, index):
        return dict(img_path=f"{index}.jpg", seg_map_path=f"{index}.png")


def load(happens, workers=2, patience=PATIENCE, at=5, **more):
    """Read all samples, one in a batch, as a training does; odd samples are worker 1's."""
    if workers:
        more["multiprocessing_context"] = "fork"
    loader = DataLoader(Samples(happens, at), num_workers=workers, **more)
    name_failing_samples(loader.dataset)
    note_samples(loader)
    with watched(patience / 60), explaining_workers():
        assert [int(batch) for batch in loader] == list(range(8))


def send(number):
    return lambda: os.kill(os.getpid(), number)


def nap(seconds):
    return lambda: time.sleep(seconds)


def until_ended(pid):
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def test_a_normal_run_says_nothing(tmp_path):
    process = forked.start(tmp_path / "said", load, lambda: None)
    assert forked.end(process) == 0
    assert (tmp_path / "said").read_text() == ""


@pytest.mark.parametrize(
    ("happens", "how"), [(send(signal.SIGSTOP), "stopped (state T"), (nap(60), "waiting")]
)
def test_a_worker_that_stands_still_is_named_and_ends_the_run(tmp_path, happens, how):
    begun = time.monotonic()
    process = forked.start(tmp_path / "said", load, happens)
    assert forked.end(process) == 1
    assert time.monotonic() - begun < 15
    warning, error = (tmp_path / "said").read_text().splitlines()
    for line, start in ((warning, "warning: nothing has moved since "), (error, "error: no data since ")):
        assert line.startswith(start)
        assert "data worker 1 (pid " in line and "data worker 0" not in line
        assert f", {how}" in line and "has been preparing image 5.jpg with label 5.png since " in line
    assert "waiting for its data workers" in warning and "--patience" in error


def test_a_worker_that_cannot_be_killed_does_not_keep_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(stalled, "_GRACE", 0.2)
    killed = []

    def kill(workers, message):
        killed.append(workers)
        if len(killed) > 1:  # at first, as one that a disk blocks, it takes no notice
            data_workers.kill(workers, message)

    monkeypatch.setattr(stalled, "kill", kill)
    process = forked.start(tmp_path / "said", load, send(signal.SIGSTOP))
    assert forked.end(process) == 1
    said = (tmp_path / "said").read_text()
    assert said.count("error: no data since") == 1 and "data worker 1 (pid " in said
    pid = int(said.partition("data worker 1 (pid ")[2].partition(")")[0])
    assert until_ended(pid)


def test_with_no_patience_it_waits_for_ever_without_a_word(tmp_path):
    process = forked.start(tmp_path / "said", load, nap(2.5), 2, 0)
    assert forked.end(process) == 0
    assert (tmp_path / "said").read_text() == ""


def test_slow_samples_are_progress(tmp_path):
    def slow(happens):
        loader = DataLoader(
            Samples(), num_workers=1, multiprocessing_context="fork", batch_size=8, collate_fn=list
        )
        loader.dataset.prepare_data = lambda index: time.sleep(PATIENCE / 2) or index
        note_samples(loader)
        with watched(PATIENCE / 60):  # a batch takes four times as long, a sample half
            assert list(loader) == [list(range(8))]

    process = forked.start(tmp_path / "said", slow, None)
    assert forked.end(process) == 0
    assert (tmp_path / "said").read_text() == ""


def test_a_sample_that_blocks_this_process_is_named_again_and_again(tmp_path):
    process = forked.start(tmp_path / "said", load, nap(4 * PATIENCE), 0)
    assert forked.end(process) == 0
    lines = (tmp_path / "said").read_text().splitlines()
    assert len(lines) == 2  # after once and twice the patience
    for line in lines:
        assert line.startswith("warning: nothing has moved")
        assert "this process has been preparing image 5.jpg with label 5.png since" in line


def test_the_timeout_of_a_config_ends_the_run_too(tmp_path):
    def with_timeout():
        # The worker's first sample: a loader that fetches a batch from a stopped worker knows no timeout.
        load(send(signal.SIGSTOP), patience=0, at=1, timeout=1)

    process = forked.start(tmp_path / "said", with_timeout)
    assert forked.end(process) == 1
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert line.startswith("error: DataLoader timed out after 1") and "data worker 1 (pid" in line
    assert "has been preparing image 1.jpg" in line


@pytest.mark.parametrize(
    ("number", "reason", "advice"),
    [
        (signal.SIGKILL, "was killed by a signal (Killed)", "memory runs out"),
        (signal.SIGBUS, "was killed by a signal (Bus error)", "--shm-size"),
        (signal.SIGSEGV, "was killed by a signal (Segmentation fault)", "num_workers=0"),
    ],
)
def test_a_worker_that_is_killed_is_explained(tmp_path, number, reason, advice):
    # With time for the loader to find out by itself, on a busy machine too.
    process = forked.start(tmp_path / "said", lambda: load(send(number), patience=30))
    assert forked.end(process) == 1
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert line.startswith("error: data worker (pid ") and reason in line and advice in line
    assert "while it prepared image 5.jpg with label 5.png" in line


def test_a_killed_worker_is_explained_wherever_the_main_thread_was():
    with pytest.raises(UserError, match=r"^data worker \(pid 7\) was killed by a signal \(Killed\);"):
        with explaining_workers():
            try:
                raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
            except RuntimeError:
                raise SyntaxError("a config that cannot be printed") from None


def test_other_errors_stay_as_they_are():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as caught, explaining_workers():
        raise error
    assert caught.value is error


def test_the_part_of_wrapped_sets_is_named():
    class Foreign(Dataset):
        """Of another library: it has no files to name."""

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return self.prepare_data(index)

        def prepare_data(self, index):
            found.extend(map(str, standing_still()))

    found = []
    dataset = ConcatDataset([Samples(lambda: found.extend(map(str, standing_still()))), Foreign()])
    loader = DataLoader(dataset)
    note_samples(loader)
    dataset[5]
    dataset[8 + 3]
    first, second = found
    assert first.startswith("this process has been preparing image 5.jpg with label 5.png since ")
    assert second.startswith("this process has been preparing sample 3 since ")
    assert not standing_still()


def test_of_many_workers_the_first_is_told():
    workers = [data_workers.Worker(n, 100 + n, "D", f"{n}.jpg", 50.0 - n, True, True) for n in range(5)]
    first, rest = data_workers.told(workers)
    assert "data worker 4 (pid 104), blocked in the system (state D" in first
    assert rest == "data workers 0 to 3 stand still, too"
    assert data_workers.told(workers[:2]) == [str(one) for one in workers[:2]]
