"""All that an object keeps is counted once, and networks are not."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from danseg.apis import explore
from danseg.app.held_bytes import held_bytes


def test_storages_are_counted_once_however_they_are_reached():
    tensor, array = torch.zeros(10, 100), np.zeros((4, 8))
    thing = SimpleNamespace(one=[tensor, tensor[2:]], other={"a": (array, array[1:].T)})
    assert held_bytes(thing) == 4000 + 256


def test_what_a_function_holds_counts():
    kept, given = torch.zeros(50), torch.zeros(7)

    def outer():
        x = kept
        return lambda positions: x[positions]

    assert held_bytes([outer(), given.sum]) == 200 + 28


def test_networks_do_not_count():
    module = nn.Linear(100, 100)
    assert held_bytes([module, module.forward, torch.zeros(2)]) == 8


def test_an_exploration_is_as_large_as_it_says_and_grows_with_its_use(networks, pictures):
    exploration = explore(networks[0].model, str(pictures[0]))
    before = held_bytes(exploration)
    assert exploration.nbytes <= before < 1.2 * exploration.nbytes
    key = next(key for key, view in exploration.views.items() if view.kind == "position")
    exploration.attention(key, [(3, 5)])
    begun = held_bytes(exploration)
    exploration.attention(key, [(40, 20)])
    assert before < begun == held_bytes(exploration)
