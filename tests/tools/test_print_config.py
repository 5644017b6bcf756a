"""tools/print_config.py prints what training would use."""

from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]


def test_the_printed_config_is_the_merged_one(tool, capsys, tmp_path):
    tool("print_config").main(
        [str(ROOT / "tests" / "engine" / "tiny.py"), "--cfg-options", "train_cfg.max_iters=7"]
    )
    printed = tmp_path / "printed.py"
    printed.write_text(capsys.readouterr().out)
    config = Config.fromfile(str(printed))
    assert config.train_cfg.max_iters == 7
    assert config.model.decode_head.type == "DANetHead"
