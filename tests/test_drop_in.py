"""danseg.drop_in: stock mmseg configs, and mmseg's stock training script, on danseg's heads."""

import subprocess
import sys
from pathlib import Path

import mmseg
import pytest

MIM = Path(mmseg.__file__).parent / ".mim"

# In a process of its own: the import changes mmseg's registry for good.
_EVERY_HEAD = """
import torch
import danseg
from mmseg.models import decode_heads
from mmseg.registry import MODELS

names = ("DAHead", "NLHead", "CCHead", "PSAHead", "GCHead", "ISAHead", "DNLHead")
stock = {name: MODELS.get(name) for name in names}
assert all(head.__module__.startswith("mmseg") for head in stock.values())
import danseg.drop_in
assert set(danseg.drop_in.HEADS) == set(stock)

special = dict(
    DAHead=dict(pam_channels=4), PSAHead=dict(mask_size=(9, 13)), ISAHead=dict(isa_channels=8),
)
compared = []
for name, theirs in stock.items():
    arguments = dict(in_channels=24, channels=16, num_classes=5, norm_cfg=dict(type="BN"))
    arguments.update(special.get(name, {}))
    ours = MODELS.build(dict(arguments, type=name)).eval()
    assert type(ours).__module__.startswith("danseg.heads"), name
    try:
        theirs = theirs(**arguments).eval()
    except RuntimeError:  # mmseg's needs operators that are not compiled here
        assert name in ("CCHead", "PSAHead")
        continue
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = [torch.randn(2, 24, 9, 13)]
    want = theirs(x)
    want = want[0] if isinstance(want, (tuple, list)) else want
    assert (ours(x) - want).abs().max() < 1e-5 * want.abs().max(), name
    compared.append(name)
print(len(compared))
"""


def test_every_head_of_mmseg_becomes_dansegs_and_gives_the_same():
    run = subprocess.run([sys.executable, "-c", _EVERY_HEAD], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[-1]) >= 5


@pytest.mark.skipif(
    not (MIM / "tools" / "train.py").is_file(), reason="mmseg was installed without its tools"
)
def test_mmsegs_training_script_trains_and_evaluates_a_stock_config(tmp_path, rendered_root):
    # mmseg's own head of this config cannot be built without compiled operators: what trains is danseg's.
    stock = MIM / "configs" / "ccnet" / "ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py"
    config = tmp_path / "stock.py"
    line = "custom_imports = dict(imports=['danseg.drop_in'], allow_failed_imports=False)"
    config.write_text(f"_base_ = [{str(stock)!r}]\n{line}\n")
    smaller = [
        "model.pretrained=None",
        "model.backbone.depth=18",
        "model.backbone.base_channels=8",
        "model.backbone.stem_channels=8",
        "model.decode_head.in_channels=64",
        "model.decode_head.channels=16",
        "model.auxiliary_head.in_channels=32",
        "model.auxiliary_head.channels=8",
        "model.data_preprocessor.size=(32,64)",
        "train_dataloader.dataset.pipeline.2.scale=(128,64)",
        "train_dataloader.dataset.pipeline.3.crop_size=(32,64)",
        "val_dataloader.dataset.pipeline.1.scale=(128,64)",
        "train_cfg.max_iters=2",
        "train_cfg.val_interval=2",
        "param_scheduler.0.end=2",
        "default_hooks.checkpoint.interval=2",
    ]
    for loader in ("train_dataloader", "val_dataloader"):
        smaller += [
            f"{loader}.num_workers=0",
            f"{loader}.persistent_workers=False",
            f"{loader}.dataset.data_root={rendered_root}",
        ]
    script, work = MIM / "tools" / "train.py", tmp_path / "work"
    command = [sys.executable, str(script), str(config), "--work-dir", str(work)]
    run = subprocess.run([*command, "--cfg-options", *smaller], capture_output=True, text=True, cwd=tmp_path)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said[-3000:]
    assert "mIoU" in said
    assert (work / "iter_2.pth").is_file()
