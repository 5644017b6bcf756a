import pytest

from danseg.model_files import CHECKPOINTS, EXPORTED, is_model_file


@pytest.mark.parametrize("suffix", [*CHECKPOINTS, *EXPORTED, ".PTH"])
def test_files_of_networks_and_their_addresses(suffix):
    for name in (f"a/b{suffix}", f"https://host/b{suffix}", f"https://host/b{suffix}#sha256=0123456789"):
        assert is_model_file(name)


@pytest.mark.parametrize("name", ["configs/danet_r18_camvid.py", "danet_r18_camvid", "best.pth.py", "a.png"])
def test_configs_are_none(name):
    assert not is_model_file(name)
