import json
from hashlib import sha256

import pytest
import torch

from danseg.engine.checkpoints.content_hash import HASH, PUBLISHED, check_content, content_hash
from danseg.errors import UserError

META = {"cfg": "a = 1", PUBLISHED: {"network": "x"}}


def test_the_hash_is_that_of_names_kinds_shapes_bytes_and_notes():
    weights = {"b": torch.tensor([[1.0, -2.0]]), "a": torch.tensor(3, dtype=torch.int64)}
    notes = json.dumps(META, sort_keys=True)
    parts = ['["a", "torch.int64", []]', (3).to_bytes(8, "little"), '["b", "torch.float32", [1, 2]]']
    data = bytes.fromhex("0000803f000000c0")  # 1 and -2 as IEEE 754 has them
    expected = sha256(b"".join(p if isinstance(p, bytes) else p.encode() for p in (notes, *parts, data)))
    assert content_hash(weights, META) == expected.hexdigest()
    stored = {**META, PUBLISHED: {**META[PUBLISHED], HASH: "anything"}}
    assert content_hash(dict(reversed(weights.items())), stored) == expected.hexdigest()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.uint8])
def test_every_kind_of_number_and_any_layout_counts(dtype):
    weights = torch.arange(6).reshape(2, 3).to(dtype)
    changed = weights.clone()
    changed[1, 2] = 0
    hashes = {content_hash({"a": one}, META) for one in (weights, changed, weights.reshape(3, 2))}
    assert len(hashes) == 3
    assert content_hash({"a": weights.t().contiguous().t()}, META) == content_hash({"a": weights}, META)


def test_what_was_not_published_passes_and_what_was_changed_does_not():
    weights = {"a": torch.zeros(2)}
    for meta in ({}, None, 3, {"cfg": ""}):
        check_content({"state_dict": weights, "meta": meta}, "a.pth")
    check_content({"a": torch.zeros(1)}, "a.pth")
    stored = {**META, PUBLISHED: {**META[PUBLISHED], HASH: content_hash(weights, META)}}
    check_content({"state_dict": weights, "meta": stored}, "a.pth")
    others = (
        {"a": torch.ones(2)},
        {"b": torch.zeros(2)},
        {"a": torch.zeros(2, dtype=torch.int32)},
        3,
        {"a": 1},
    )
    for state in others:
        with pytest.raises(UserError, match=r"a\.pth was changed after it was published"):
            check_content({"state_dict": state, "meta": stored}, "a.pth")
    for published in (3, None, [], {}, {HASH: None}, {HASH: torch.zeros(2)}):
        with pytest.raises(UserError, match=r"a\.pth was changed after it was published"):
            check_content({"state_dict": weights, "meta": {**META, PUBLISHED: published}}, "a.pth")
