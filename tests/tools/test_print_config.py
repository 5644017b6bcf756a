"""tools/print_config.py prints what training would use, and what is wrong with it."""

from pathlib import Path

import pytest
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


def test_what_is_wrong_follows_the_config(tool, capsys):
    options = ["test_evaluator.iou_metrics=mIou", "param_scheduler.0.by_epoch=True"]
    with pytest.raises(SystemExit):
        tool("print_config").main([str(ROOT / "tests" / "engine" / "tiny.py"), "--cfg-options", *options])
    printed, said = capsys.readouterr()
    assert 'iou_metrics="mIou"' in printed or "iou_metrics='mIou'" in printed
    assert "test_evaluator.iou_metrics='mIou'" in said and "param_scheduler.0.by_epoch=True" in said
