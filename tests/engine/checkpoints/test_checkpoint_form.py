"""Checkpoints whose entries are of the wrong types: one line each, whichever way they are read."""

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from danseg.engine.checkpoints import checkpoint_form
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.errors import UserError

WRONG = {"tensor": torch.ones(2), "number": 1.5, "nested": [[[]]], "keys": {1: "a"}, "flag": b"x"}


def put(place, value):
    """A checkpoint that is sound but for ``value`` at ``place``."""
    content = {"state_dict": {"a": torch.ones(1)}, "meta": {"dataset_meta": {}}, "message_hub": {}}
    *folders, last = place.split(".")
    inner = content
    for key in folders:
        inner = inner[key]
    inner[last] = value
    return content


@pytest.mark.parametrize("place", checkpoint_form._FORM)
def test_an_entry_of_another_type_is_named(tmp_path, place):
    taken = []
    for name, value in WRONG.items():
        torch.save(put(place, value), tmp_path / "a.pth")
        try:
            read_checkpoint(tmp_path / "a.pth")
        except UserError as error:
            assert f"a.pth is malformed: its {place} " in str(error) and "\n" not in str(error)
        else:
            taken.append(name)
    # A list is one, whatever it holds, unless it holds names, colours or states.
    assert taken == (["nested"] if place == "param_schedulers" else [])


def test_a_state_dict_is_needed(tmp_path):
    torch.save({"state_dict": None, "meta": None}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="its state_dict is a NoneType, not a dict"):
        read_checkpoint(tmp_path / "a.pth")


def test_other_entries_may_be_empty_and_foreign_ones_anything(tmp_path):
    content = {"state_dict": {}, "meta": None, "optimizer": None, "message_hub": None, "hyper": {1: [2]}}
    torch.save(content, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth") == content


def test_damaged_histories_are_named(tmp_path):
    for damage in (np.float64(3), np.ones((2, 2)), np.ones(5), None):
        history = HistoryBuffer([1.0, 2.0], [1, 1])
        history._log_history = damage
        torch.save(put("message_hub.log_scalars", {"loss": history}), tmp_path / "a.pth")
        with pytest.raises(UserError, match=r"message_hub.log_scalars holds a history 'loss' that is not"):
            read_checkpoint(tmp_path / "a.pth")


def test_resumed_keys_are_true_or_false(tmp_path):
    torch.save(put("message_hub.resumed_keys", {"iter": True, "cfg": torch.ones(2)}), tmp_path / "a.pth")
    with pytest.raises(UserError, match="resumed_keys holds a Tensor for 'cfg', not true or false"):
        read_checkpoint(tmp_path / "a.pth")
