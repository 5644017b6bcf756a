"""The parts of a config from which something is built."""

import pytest

from broken_config import tiny_with
from danseg.engine.config.config_parts import parts, resolve


@pytest.mark.parametrize("task", ["train", "test"])
def test_every_dict_with_a_type_is_a_part(task):
    """But for the schedule of another task, and what only a name or an anchor of the file holds."""
    config = tiny_with({})
    found = {part.place for part in parts(config, task)}

    def typed(node, place):
        children = (
            node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        )
        if isinstance(node, dict) and "type" in node:
            yield place
        for key, child in children:
            yield from typed(child, f"{place}.{key}")

    roots = ["model", "default_hooks", "visualizer"]
    roots += {
        "train": ["train_dataloader", "val_dataloader", "val_evaluator", "train_cfg", "val_cfg"],
        "test": ["test_dataloader", "test_evaluator", "test_cfg"],
    }[task]
    roots += ["optim_wrapper", "param_scheduler"] if task == "train" else []
    wanted = {place for root in roots for place in typed(config[root], root)}
    assert len(wanted) > 20 and not wanted - found


def test_every_part_is_found_in_its_registry():
    built = [resolve(part) for part in parts(tiny_with({}), "train")]
    assert len(built) > 30 and None not in built
    assert "DANetHead" in {one.__name__ for one in built}
