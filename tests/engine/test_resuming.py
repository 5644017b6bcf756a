"""Which checkpoint a training continues from: the newest usable one, on all nodes, with the same content."""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as torch_dist

from danseg.engine import resuming
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.distributed import leave_group
from danseg.engine.resuming import find_resumable, loaded, resumed
from danseg.errors import UserError
from equal_nests import equal
from unreadable_file import forbid

TINY = Path(__file__).with_name("tiny.py")


def save(path, value=0.0, iteration=1, **extra):
    path.parent.mkdir(exist_ok=True)
    state = {"weight": torch.full((300,), value)}
    meta = {"epoch": 0, "iter": iteration}
    torch.save({"state_dict": state, "meta": meta, "optimizer": {}, **extra}, path)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


def test_resuming_falls_back_from_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    for step in (1, 2, 3, 4):
        save(tmp_path / f"iter_{step}.pth", value=3.7)
    forbid(tmp_path / "iter_4.pth", monkeypatch)
    torch.save({"state_dict": [], "optimizer": {}}, tmp_path / "iter_3.pth")
    flipped = bytearray((tmp_path / "iter_2.pth").read_bytes())
    weight = read_checkpoint(tmp_path / "iter_2.pth")["state_dict"]["weight"].numpy().tobytes()
    flipped[flipped.index(weight) + 5] ^= 4
    (tmp_path / "iter_2.pth").write_bytes(flipped)
    said = []
    assert find_resumable(tmp_path, said.append)[0] == str(tmp_path / "iter_1.pth")
    reasons = ("4.pth cannot be read: Permission", "3.pth is malformed: its state_dict", "2.pth is damaged")
    for message, reason in zip(said, reasons, strict=True):
        assert message.startswith("not resuming from") and f"iter_{reason}" in message


def test_the_newest_readable_checkpoint_is_found_without_a_note(tmp_path):
    for step in (2, 9, 10):
        save(tmp_path / f"iter_{step}.pth")
    save(tmp_path / "best_mIoU_iter_11.pth")
    path, checkpoint = find_resumable(tmp_path)
    assert path.endswith("/iter_10.pth")  # by number: "9" sorts after "10"
    assert checkpoint["optimizer"] == {}  # the file is read once

    cut(tmp_path / "iter_10.pth")
    (tmp_path / "last_checkpoint").write_text("/moved/away/iter_10.pth")
    said = []
    assert find_resumable(tmp_path, said.append)[0].endswith("/iter_9.pth")
    assert "iter_10.pth is cut off" in said[0]

    for step in (2, 9):
        (tmp_path / f"iter_{step}.pth").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 3 checkpoints"):
        find_resumable(tmp_path, said.append)
    assert find_resumable(tmp_path / "new") is None


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize(("signalled", "newest"), [(150, "iter_150.pth"), (100, "epoch_3.pth")])
def test_the_newest_of_epochs_and_iterations_is_told_by_the_iteration_inside(
    tmp_path, signalled, newest, old_format
):
    """A signal writes ``iter_N`` between the ``epoch_N`` of a loop over epochs."""
    for epoch in (2, 3):
        save(tmp_path / f"epoch_{epoch}.pth", iteration=40 * epoch)
    path = save(tmp_path / f"iter_{signalled}.pth", iteration=signalled)
    if old_format:
        torch.save(read_checkpoint(path), path, _use_new_zipfile_serialization=False)
    assert find_resumable(tmp_path)[0] == str(tmp_path / newest)
    cut(tmp_path / newest)
    said = []
    before = {"iter_150.pth": "epoch_3.pth", "epoch_3.pth": "iter_100.pth"}[newest]
    assert find_resumable(tmp_path, said.append)[0] == str(tmp_path / before)
    assert len(said) == 1 and f"{newest} is " in said[0]


def test_tensors_are_not_read_to_find_the_newest(tmp_path):
    """What is read of a large file: its pickle, and not the tensors beside it."""
    path = save(tmp_path / "iter_7.pth", iteration=7)
    assert resuming._stored_iteration(path) == 7
    broken = bytearray(path.read_bytes())
    broken[broken.index(torch.zeros(300).numpy().tobytes())] ^= 1
    path.write_bytes(broken)
    assert resuming._stored_iteration(path) == 7
    os.mkfifo(tmp_path / "iter_9.pth")
    assert resuming._stored_iteration(tmp_path / "iter_9.pth") == float("inf")


def rank_of_two(rank, folder, work):
    """Run one rank: its result, what it says and its error go to files of its own."""
    sys.stderr = (folder / f"{rank}.err").open("w")
    torch_dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    said = []
    found = work(rank, said.append)
    torch.save((found, said), folder / f"{rank}.out")
    leave_group()


def on_two_ranks(folder, work):
    """What ``work(rank, log)`` returns and logs on each rank; the error message if it ends with one."""
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=rank_of_two, args=(rank, folder, work), daemon=True) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    (folder / "store").unlink(missing_ok=True)
    errors = "".join((folder / f"{rank}.err").read_text() for rank in range(2))
    if errors:
        assert [process.exitcode for process in ranks] == [1, 1]
        assert errors.startswith("error: ") and errors.count("error: ") == 1 and "Traceback" not in errors
        return errors
    assert [process.exitcode for process in ranks] == [0, 0]
    return [torch.load(folder / f"{rank}.out", weights_only=False) for rank in range(2)]


CASES = {  # the files of each rank's folder, which file is taken, from which rank
    "rank 0 alone": (({"iter_2": 2.0, "iter_4": 4.0}, {}), "iter_4", 0),
    "rank 1 alone": (({}, {"iter_2": 2.0, "iter_4": 4.0}), "iter_4", 1),
    "the newest is on rank 1": (({"iter_2": 2.0}, {"iter_2": 2.0, "iter_6": 6.0}), "iter_6", 1),
    "both": (({"iter_4": 4.0}, {"iter_4": 4.0}), "iter_4", 0),
    "another file of that name": (({"iter_4": 4.0}, {"iter_4": 5.0}), "iter_4", 0),
    "damaged on rank 0": (({"iter_4": None, "iter_2": 2.0}, {"iter_4": 4.0}), "iter_4", 1),
    "damaged on rank 1": (({"iter_4": 4.0}, {"iter_4": None}), "iter_4", 0),
    "damaged on both": (({"iter_4": None, "iter_2": 2.0}, {"iter_4": None}), "iter_2", 0),
    "kinds on different nodes": (({"epoch_3": 3.0}, {"iter_4": 4.0}), "iter_4", 1),
    "none": (({}, {}), None, 0),
}


def fill(tmp_path, files):
    for rank, own in enumerate(files):
        (tmp_path / str(rank)).mkdir()
        for name, value in own.items():
            path = save(tmp_path / str(rank) / f"{name}.pth", value or 0.0, int(value or 0))
            if value is None:
                cut(path)


@pytest.mark.parametrize("case", CASES)
def test_ranks_without_a_common_folder_agree_on_the_newest(tmp_path, monkeypatch, case):
    files, name, source = CASES[case]
    fill(tmp_path, files)
    monkeypatch.setattr(resuming, "_PIECE", 1000)  # several pieces, the last one shorter
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    results = on_two_ranks(tmp_path, lambda rank, log: resumed(str(tmp_path / str(rank)), "auto", log))
    assert not list(temporary.iterdir())
    if name is None:
        assert results == [(None, []), (None, [])]
        return
    expected = read_checkpoint(tmp_path / str(source) / f"{name}.pth")
    for rank, ((path, content), _) in enumerate(results):
        assert path == str(tmp_path / str(rank) / f"{name}.pth") and equal(content, expected)
    said = " ".join(results[0][1])
    sent = files[0].get(name) != files[1].get(name)
    assert (f"its content comes from rank {source}" in said) == sent
    assert ("is cut off" in said) == (case in ("damaged on rank 0", "damaged on both"))


@pytest.mark.parametrize("find", ["resume", "load_from"])
@pytest.mark.parametrize("holder", [0, 1, None])
def test_a_named_file_may_be_on_one_node_only(tmp_path, find, holder):
    """The two folders are what two nodes have at one path: each rank looks from its own."""
    fill(tmp_path, [{"a": 7.0} if rank == holder else {} for rank in range(2)])

    def look(rank, log):
        os.chdir(tmp_path / str(rank))
        return resumed("work", "a.pth", log) if find == "resume" else loaded("a.pth", log)

    results = on_two_ranks(tmp_path, look)
    if holder is None:
        assert results == "error: checkpoint a.pth does not exist\n"
        return
    for (path, content), _ in results:
        assert path == "a.pth" and (content["state_dict"]["weight"] == 7).all()
    assert f"a.pth is not on rank {1 - holder}: its content comes from rank {holder}" in results[0][1][0]


def test_what_cannot_be_sent_ends_all_ranks_with_one_message(tmp_path, monkeypatch):
    fill(tmp_path, CASES["rank 0 alone"][0])

    def look(rank, log):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        return resumed(str(tmp_path / str(rank)), "auto", log)

    assert "iter_4.pth to other ranks" in on_two_ranks(tmp_path, look)

    def changing(rank, log):
        if rank == 0:  # the source writes into the file, after the ranks have compared what they have
            before = resuming.broadcast
            monkeypatch.setattr(resuming, "broadcast", lambda piece, source: before(piece.add_(1), source))
        return resumed(str(tmp_path / str(rank)), "auto", log)

    assert "iter_4.pth changed on rank 0" in on_two_ranks(tmp_path, changing)


def test_none_that_can_be_resumed_is_said_once(tmp_path):
    fill(tmp_path, ({"iter_4": None}, {"iter_2": None}))
    error = on_two_ranks(tmp_path, lambda rank, log: resumed(str(tmp_path / str(rank)), "auto", log))
    assert error.startswith("error: none of the 2 checkpoints in")
