"""danseg.drop_in: stock mmseg configs, and mmseg's stock training script, on danseg's classes."""

import re
import subprocess
import sys
from pathlib import Path

import mmseg
import mmseg.models  # noqa: F401  (fills the registry)
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import inference_model
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS

import danseg.heads
from danseg.visualization import attention_modules
from danseg.visualization.attention_recording import record_attention
from danseg.visualization.attention_switch import switched_off

MIM = Path(mmseg.__file__).parent / ".mim"
BY_MMSEG = dict(MODELS.module_dict)


def _drop_in() -> tuple[dict, dict, dict]:
    """danseg's heads and segmentors under mmseg's names, and what the registry holds after the import.

    mmseg's own classes are restored afterwards, because other tests compare with them.
    """
    from danseg.drop_in import HEADS, SEGMENTORS

    registered = {name: MODELS.get(name) for name in {**HEADS, **SEGMENTORS}}
    for name in registered:
        MODELS.register_module(name=name, module=BY_MMSEG[name], force=True)
    return HEADS, SEGMENTORS, registered


HEADS, SEGMENTORS, REGISTERED = _drop_in()
every_pair = pytest.mark.parametrize("name", sorted(HEADS))


def _stock_arguments(name: str) -> dict:
    """The arguments of the head in mmseg's own model config, with fewer channels."""
    for path in sorted(MIM.glob("configs/_base_/models/*_r50-d8.py")):
        head = Config.fromfile(path).model.decode_head
        if not isinstance(head, list) and head.pop("type") == name:
            head.update(in_channels=24, in_index=0, channels=16, num_classes=5, norm_cfg=dict(type="BN"))
            own = dict(pam_channels=4, isa_channels=8, mask_size=(9, 13))
            head.update({key: own[key] for key in own if key in head})
            return head
    raise LookupError(f"no model config of mmseg has a {name}")


def _draw(head: torch.nn.Module) -> None:
    """Set weights, scales that start at zero, and batch statistics to values that have an effect."""
    torch.manual_seed(0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.2)
    for buffer in head.buffers():
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.5, 1.5)


def test_the_import_takes_the_names_of_all_that_danseg_has_too():
    assert {**HEADS, **SEGMENTORS} == REGISTERED
    assert sorted(SEGMENTORS) == ["EncoderDecoder", "SegTTAModel"]
    assert sorted(HEADS) == [
        "CCHead",
        "DAHead",
        "DNLHead",
        "FCNHead",
        "GCHead",
        "ISAHead",
        "NLHead",
        "PSAHead",
    ]
    assert all(BY_MMSEG[name].__module__.startswith("mmseg.") for name in REGISTERED)


def test_they_are_the_heads_that_all_other_tests_cover():
    tested = tuple(getattr(danseg.heads, name) for name in danseg.heads.__all__)
    assert all(issubclass(head, tested) for head in HEADS.values())


@pytest.mark.parametrize("name", sorted(HEADS.keys() - {"FCNHead"}))  # it has no attention
def test_it_takes_the_arguments_of_mmsegs_config_and_sees_every_position(name):
    head = HEADS[name](**_stock_arguments(name)).eval()
    _draw(head)
    x = torch.randn(1, 24, 9, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 0, 0] += 5
    with torch.no_grad():
        assert (head.double()([changed]) - head([x]))[:, :, -1, -1].abs().amax() > 1e-9


def test_it_means_by_a_compact_mask_what_mmsegs_head_does():
    arguments = _stock_arguments("PSAHead") | dict(compact=True, psa_type="collect", mask_size=(5, 7))
    assert HEADS["PSAHead"](**arguments).swap_compact  # tests/heads compares this setting with mmseg's head
    assert not HEADS["PSAHead"](**arguments, swap_compact=False).swap_compact


@every_pair
def test_it_takes_mmsegs_weights_and_gives_its_logits(name):
    arguments = _stock_arguments(name)
    try:
        theirs = BY_MMSEG[name](**arguments).eval()
    except RuntimeError as error:  # tests/heads compares these with the missing operator filled in
        pytest.skip(f"mmseg's needs compiled operators: {error}")
    _draw(theirs)
    ours = HEADS[name](**arguments).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 24, 9, 13)
    with torch.no_grad():
        want = theirs([x])
        want = want[0] if isinstance(want, (tuple, list)) else want
        torch.testing.assert_close(ours([x]), want, rtol=1e-5, atol=1e-5 * want.abs().max().item())


def _network(name: str, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A small network of mmseg's config, built under mmseg's names, with danseg's classes behind them."""
    for registered, made in {**HEADS, **SEGMENTORS}.items():
        monkeypatch.setitem(MODELS.module_dict, registered, made)
    backbone = dict(type="ResNetV1c", depth=18, base_channels=8, stem_channels=8, norm_cfg=dict(type="BN"))
    head = {**_stock_arguments(name), "type": name, "in_channels": 64, "in_index": 3}
    model = dict(type="EncoderDecoder", backbone=backbone, decode_head=head, test_cfg=dict(mode="whole"))
    network = MODELS.build(model)
    _draw(network.decode_head)
    return network.eval()


def test_every_head_but_fcn_shows_its_attention(monkeypatch):
    silent = [name for name in HEADS if not attention_modules(_network(name, monkeypatch))]
    assert silent == ["FCNHead"]


@every_pair
@torch.no_grad()
def test_what_has_attention_shows_it_in_mmsegs_network(name, monkeypatch):
    network = _network(name, monkeypatch)
    modules = attention_modules(network)
    if not modules:
        pytest.skip("test_every_head_but_fcn_shows_its_attention says which these are")
    image = torch.randn(1, 3, 72, 104, generator=torch.Generator().manual_seed(0))
    with record_attention(network) as recorded:
        logits = network(image, mode="tensor")
    assert recorded.keys() == modules.keys()
    for path, one in recorded.items():
        assert path == "decode_head" or path.startswith("decode_head.")
        for view in one.views.values():
            asked = [(0, 0), (1, 2)] if view.kind == "position" else []
            seen = one.show(asked, view.name)
            assert seen.isfinite().all() and seen.shape[0] == 1
            assert view.kind != "position" or seen.shape[1] == 2
        with switched_off(network, path):
            without = network(image, mode="tensor")
        assert without.shape == logits.shape and not torch.allclose(without, logits, rtol=1e-4)
    assert torch.equal(network(image, mode="tensor"), logits)


def _stock(network: str) -> Path:
    """A config of mmseg's for Cityscapes."""
    return MIM / "configs" / network / f"{network}_r50-d8_4xb2-40k_cityscapes-512x1024.py"


def _smaller(data_root: str) -> dict:
    """Options that make such a config run in seconds."""
    smaller = {
        "model.pretrained": None,
        "model.backbone.depth": 18,
        "model.backbone.base_channels": 8,
        "model.backbone.stem_channels": 8,
        "model.decode_head.in_channels": 64,
        "model.decode_head.channels": 16,
        "model.auxiliary_head.in_channels": 32,
        "model.auxiliary_head.channels": 8,
        "model.data_preprocessor.size": (32, 64),
        "train_dataloader.dataset.pipeline.2.scale": (128, 64),
        "train_dataloader.dataset.pipeline.3.crop_size": (32, 64),
        "train_cfg.max_iters": 2,
        "train_cfg.val_interval": 2,
        "param_scheduler.0.end": 2,
        "default_hooks.checkpoint.interval": 2,
    }
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        smaller[f"{loader}.num_workers"] = 0
        smaller[f"{loader}.persistent_workers"] = False
        smaller[f"{loader}.dataset.data_root"] = data_root
        if loader != "train_dataloader":
            smaller[f"{loader}.dataset.pipeline.1.scale"] = (128, 64)
    return smaller


@pytest.mark.slow
def test_mmsegs_scripts_train_and_test_a_stock_config(tmp_path, rendered_root):
    # mmseg's own head of this config cannot be built without compiled operators: what trains is danseg's.
    config = tmp_path / "stock.py"
    line = "custom_imports = dict(imports=['danseg.drop_in'], allow_failed_imports=False)"
    config.write_text(f"_base_ = [{str(_stock('ccnet'))!r}]\n{line}\n")
    smaller = [f"{key}={value}".replace(" ", "") for key, value in _smaller(rendered_root).items()]

    def miou(script: str, *arguments: str | Path) -> str:
        command = [sys.executable, str(MIM / "tools" / script), str(config), *map(str, arguments)]
        command += ["--work-dir", str(tmp_path / script), "--cfg-options", *smaller]
        run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        said = run.stdout + run.stderr
        assert run.returncode == 0, said[-3000:]
        return re.findall(r"mIoU: ([\d.]+)", said)[-1]

    weights = tmp_path / "train.py" / "iter_2.pth"
    assert miou("train.py") == miou("test.py", weights)
    assert miou("test.py", weights, "--tta")  # it averages logits


@pytest.mark.slow
def test_mmsegs_runner_validates_without_logits_and_mmsegs_users_find_them(
    tmp_path, rendered_root, monkeypatch
):
    config = Config.fromfile(_stock("fcn"))
    config.merge_from_dict(_smaller(rendered_root))
    config.model.backbone.norm_cfg.type = "BN"
    config.work_dir, config.randomness = str(tmp_path), dict(seed=0)
    resized, original = [], BaseSegmentor.postprocess_result
    monkeypatch.setattr(
        BaseSegmentor,
        "postprocess_result",
        lambda self, logits, *rest: resized.append(logits.shape) or original(self, logits, *rest),
    )

    def scores_and_prediction(segmentor: type) -> tuple:
        monkeypatch.setitem(MODELS.module_dict, "EncoderDecoder", segmentor)
        runner = Runner.from_cfg(config)
        assert type(runner.model) is segmentor
        for parameter in runner.model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        scores = runner.val()
        made = len(resized)
        runner.model.cfg = config
        image = next(Path(rendered_root).glob("leftImg8bit/val/*/*.png"))
        return scores, made, inference_model(runner.model, str(image))

    want, made_by_mmseg, of_mmseg = scores_and_prediction(BY_MMSEG["EncoderDecoder"])
    resized.clear()
    scores, made, prediction = scores_and_prediction(SEGMENTORS["EncoderDecoder"])
    assert (made_by_mmseg, made) == (5, 0)
    assert scores == want and scores["mIoU"] > 0
    assert torch.equal(prediction.seg_logits.data, of_mmseg.seg_logits.data)
    assert len(prediction.pred_sem_seg.data.unique()) > 1
