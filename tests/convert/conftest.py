"""A training of four iterations, whose weights are averaged, as the work dir that it leaves."""

from pathlib import Path

import pytest

TINY = Path(__file__).resolve().parents[1] / "engine" / "tiny.py"


@pytest.fixture(scope="session")
def trained(tmp_path_factory, rendered_root) -> Path:
    from danseg.engine.config.config_file import load_config
    from danseg.engine.train import train

    folder = tmp_path_factory.mktemp("people") / "ann" / "secret"
    folder.mkdir(parents=True)
    path = folder / "danet_tiny.py"
    path.write_text(f'_base_ = ["{TINY}"]\ncustom_hooks = [dict(type="EMAHook", momentum=0.3)]\n')
    config = load_config(path, {"data_root": rendered_root, "randomness": {"seed": 3}})
    config.launcher, config.work_dir = "none", str(folder / "work")
    train(config, log=lambda _: None)
    return folder / "work"
