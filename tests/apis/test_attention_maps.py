import copy
from contextlib import nullcontext

import cv2
import mmseg.models.decode_heads
import numpy as np
import pytest
import torch

import danseg.attention
import danseg.heads
from cpu_alone import one_on_gpu
from danseg import apis
from danseg.apis.predict import prepared_batch
from danseg.apis.preparation import CompiledForward
from danseg.attention import PositionAttention
from danseg.attention.parts.views import ShowsAttention, View
from danseg.engine.recompute import recompute
from danseg.errors import UserError
from danseg.visualization import attention_modules
from own_test import own_test

# Not from the registry, where danseg.drop_in may stand in their place.
MMSEG_HEADS = vars(mmseg.models.decode_heads)


@pytest.mark.parametrize(
    "settings",
    [dict(), dict(size_divisor=32), dict(mode=dict(mode="slide", crop_size=(32, 32), stride=(24, 24)))],
    ids=["whole", "padded", "slide"],
)
def test_attention_maps_are_rows_of_the_module_on_the_whole_image(
    camvid, tmp_path, settings, make_config, make_checkpoint, device
):
    config = make_config(camvid, **settings)
    checkpoint = make_checkpoint(config, tmp_path / "weights.pth")
    model = apis.load_model(config, checkpoint, str(device))
    path, positions = str(camvid / "val" / "a.png"), [(71, 0), (10, 50)]
    maps = apis.attention_maps(model, path, positions)
    assert list(maps) == ["decode_head.pam"]
    found = maps["decode_head.pam"]
    # 60 x 72 is resized to 40 x 48: 5 x 6 cells, or 8 x 8 if it is padded to 64 x 64.
    padded = "size_divisor" in settings
    assert found.rows.shape == ((2, 8, 8) if padded else (2, 5, 6))
    np.testing.assert_allclose(found.rows.sum((1, 2)), 1, rtol=1e-5)
    assert found.scale == pytest.approx(0.8)
    assert found.over_image().shape == (2, 60, 72)

    image = cv2.resize(cv2.imread(path), (48, 40), interpolation=cv2.INTER_LINEAR)[..., ::-1].copy()
    x = (
        torch.from_numpy(image).permute(2, 0, 1).float() - torch.tensor([120.0, 110, 100])[:, None, None]
    ) / (torch.tensor([60.0, 61, 62])[:, None, None])
    if padded:
        x = torch.nn.functional.pad(x, (0, 16, 0, 24))
    model = apis.load_model(config, checkpoint, "cpu")
    head = model.decode_head
    with torch.no_grad():
        features = head.pam_in_conv(model.backbone(x[None])[3])
        # pixel (71, 0) lies in the upper right cell, (10, 50) in row int(50.5 / 60 * 5), column 0
        cells = [(0, 5), (4, 0)]
        expected = head.pam.attention_map(features, cells)[0]
    tolerance = 1e-4 if device.type == "cpu" else 1e-3
    np.testing.assert_allclose(found.rows, expected, rtol=tolerance, atol=tolerance / 1000)


def test_positions_outside_the_image_are_refused_with_its_size(camvid, make_config):
    model = apis.load_model(make_config(camvid), None, "cpu")
    with pytest.raises(UserError, match="x=72, y=3 .*0 to 71.*0 to 59"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [(72, 3)])
    with pytest.raises(UserError, match="at least one position"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [])


def test_a_model_without_attention_says_so(camvid, make_config):
    model = apis.load_model(make_config(camvid, head=dict(type="FCNHead", num_convs=1)), None, "cpu")
    with pytest.raises(UserError, match="FCNHead has no attention"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [(1, 1)])


def test_maps_of_different_positions_differ(camvid, tmp_path, make_config, make_checkpoint):
    config = make_config(camvid)
    model = apis.load_model(config, make_checkpoint(config, tmp_path / "weights.pth"), "cpu")
    assert isinstance(model.decode_head.pam, PositionAttention)
    found = apis.attention_maps(model, str(camvid / "val" / "a.png"), [(3, 3), (60, 50)])["decode_head.pam"]
    assert not np.allclose(found.rows[0], found.rows[1])


def map_view(module: torch.nn.Module) -> View | None:
    """A module's first view that is a map; None if it has none."""
    views = module.attention_views() if isinstance(module, ShowsAttention) else ()
    return next((view for view in views if view.kind in ("position", "everywhere")), None)


def attends(module: torch.nn.Module) -> bool:
    """Whether a module has maps to show."""
    return map_view(module) is not None


def head_arguments(name: str) -> dict:
    return dict(type=name, **own_test(getattr(danseg.heads, name)).ARGS)


IN_2D = sorted(set(danseg.attention.__all__) - {"NonLocal1d", "NonLocal3d"})
HEADS = {
    **{name: head_arguments(name) for name in danseg.heads.__all__},
    **{
        f"AttentionHead({name})": dict(
            type="AttentionHead", attention=dict(type=f"danseg.{name}", **own_test_arguments)
        )
        for name in IN_2D
        for own_test_arguments in [dict(mask_size=(5, 7)) if name.startswith("Pointwise") else {}]
    },
}


def loaded(
    camvid, make_config, head: dict = HEADS["DANetHead"], device: str | torch.device = "cpu", **changes
) -> torch.nn.Module:
    """A network with a head, random weights and batch statistics that matter."""
    config = make_config(camvid, head={key: head[key] for key in head if key != "in_channels"})
    config.model.decode_head.update(head)
    config.model.update(changes)
    torch.manual_seed(0)
    model = apis.load_model(config, None, "cpu")
    for value in model.state_dict().values():
        if value.dim() > 1:
            value.normal_(std=0.2)
    return model.to(device)


def entered(model: torch.nn.Module, image: str) -> dict[str, torch.Tensor]:
    """The input of every module that has maps and runs, found without danseg's recording."""
    # A head that is a module itself names the child that gets its input: mmseg calls a head's forward alone.
    shown = {path: module for path, module in attention_modules(model).items() if attends(module)}
    paths = {module.attention_entry: path for path, module in shown.items()}
    inputs = {}

    def keep(module, args):
        if module in paths:
            inputs[paths[module]] = args[0]

    data = model.data_preprocessor(prepared_batch(model, image), training=False)
    handle = torch.nn.modules.module.register_module_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            model(**data, mode="tensor")
    finally:
        handle.remove()
    return inputs


def test_there_are_heads_with_and_without_maps(camvid, make_config):
    models = {name: loaded(camvid, make_config, head) for name, head in HEADS.items()}
    able = {name for name, model in models.items() if any(map(attends, attention_modules(model).values()))}
    assert {"DANetHead", "AttentionHead(PositionAttention)"} <= able
    assert {"FullyConvolutionalHead", "AttentionHead(ChannelAttention)"} <= set(HEADS) - able


@pytest.mark.parametrize("name", one_on_gpu(sorted(HEADS), lambda name: HEADS[name]["type"]))
def test_every_head_gives_its_maps_or_says_that_it_has_none(camvid, make_config, name, device):
    image = str(camvid / "val" / "a.png")
    model = loaded(camvid, make_config, HEADS[name], device)
    inputs = entered(model, image)
    if not any(map(attends, attention_modules(model).values())):
        shows = attention_modules(model)
        said = "have no maps; danseg explore draws" if shows else "Head has no attention to show"
        with pytest.raises(UserError, match=said):
            apis.attention_maps(model, image, [(71, 0)])
        return
    maps = apis.attention_maps(model, image, [(71, 0), (10, 50)])
    assert maps.keys() == inputs.keys() and maps
    for path, x in inputs.items():
        # 60 x 72 is resized to 40 x 48: 5 x 6 cells
        module = copy.deepcopy(model.get_submodule(path)).cpu()
        view = map_view(module)
        by_position = view.kind == "position"
        with torch.no_grad():
            asked = getattr(getattr(module, "attention_map", None), "__annotations__", {})
            if by_position and not view.name and "positions" in asked:
                expected = module.attention_map(x.cpu(), [(0, 5), (4, 0)])[0]
            else:
                expected = view.begin(x.cpu())(*([[(0, 5), (4, 0)]] if by_position else []))[0]
        assert x.device == device
        tolerance = 1e-5 if device.type == "cpu" else 1e-3
        np.testing.assert_allclose(maps[path].rows, expected, rtol=tolerance, atol=tolerance / 100)
        assert maps[path].positions == ([(71, 0), (10, 50)] if by_position else [])
        assert maps[path].over_image().shape == (len(expected), 60, 72)


def test_the_maps_of_psanet_are_on_the_grid_of_its_attention(camvid, make_config, device):
    """As numbers: the softmax of a mask's energies around a position, written out."""
    head = dict(type="PSANetHead", mask_size=(5, 5), psa_type="collect", shrink_factor=2)
    model = loaded(camvid, make_config, head)
    model.decode_head.attention[1].weight.data.mul_(1e-3)  # or a single cell would have all the weight
    image = str(camvid / "val" / "a.png")
    rows = apis.attention_maps(model.to(device), image, [(71, 59)])["decode_head"].rows
    model.to("cpu")
    assert rows.shape == (1, 2, 3)  # half of 5 x 6 cells
    x = entered(model, image)["decode_head"]
    with torch.no_grad():
        small = torch.nn.functional.interpolate(model.decode_head.reduce(x), size=(2, 3), mode="bilinear")
        mask = model.decode_head.attention(small)[0].unflatten(0, (5, 5)).double()
    # The cell (1, 2) holds the pixel. In its mask, cell (2, 2) stands for itself.
    energy = torch.stack([mask[2 + row - 1, 2 + column - 2, 1, 2] for row in range(2) for column in range(3)])
    np.testing.assert_allclose(rows.flatten(), energy.softmax(0), rtol=1e-4)
    assert rows.max() < 0.9


@pytest.mark.parametrize("name", ["DAHead", "DNLHead", "GCHead", "ISAHead", "NLHead"])
def test_mmsegs_own_heads_have_nothing_to_record(camvid, make_config, name):
    arguments = dict(DAHead=dict(pam_channels=4), ISAHead=dict(isa_channels=8), GCHead={}).get(name, {})
    model = loaded(camvid, make_config, dict(type=MMSEG_HEADS[name], **arguments))
    with pytest.raises(UserError, match=rf"{name} has no attention to show"):
        apis.attention_maps(model, str(camvid / "val" / "a.png"), [(1, 1)])


NORM = dict(type="BN")
FCN = dict(type="FCNHead", in_channels=64, in_index=3, channels=16, num_classes=11, norm_cfg=NORM)


def test_plugins_of_the_backbone(camvid, make_config):
    config = make_config(camvid)
    plugin = dict(
        cfg=dict(type="PositionAttention"), stages=(False, False, True, True), position="after_conv3"
    )
    backbone = {**config.model.backbone, "depth": 50, "plugins": [plugin]}
    head = dict(type="FCNHead", num_convs=1, in_channels=256)
    model = loaded(camvid, make_config, head, backbone=backbone)
    image = str(camvid / "val" / "a.png")
    maps, inputs = apis.attention_maps(model, image, [(1, 1)]), entered(model, image)
    assert maps.keys() == inputs.keys()
    assert {path.rsplit(".", 2)[0] for path in maps} == {"backbone.layer3", "backbone.layer4"}


def test_auxiliary_heads_do_not_run(camvid, make_config):
    aux = dict(FCN, **head_arguments("CCNetHead"))
    image = str(camvid / "val" / "a.png")
    both = loaded(camvid, make_config, auxiliary_head=[aux])
    assert list(apis.attention_maps(both, image, [(1, 1)])) == ["decode_head.pam"]
    alone = loaded(camvid, make_config, dict(type="FCNHead", num_convs=1), auxiliary_head=[aux])
    with pytest.raises(UserError, match=r"none .* ran: auxiliary_head\.0\.cca.* in training only"):
        apis.attention_maps(alone, image, [(1, 1)])


@pytest.mark.parametrize("first", ["DANetHead", "PSANetHead", "FullyConvolutionalHead"])
def test_a_cascade_of_heads(camvid, make_config, first):
    config = make_config(camvid)
    common = {**config.model.decode_head}
    for key in ("type", *own_test(danseg.heads.DANetHead).ARGS):
        common.pop(key, None)
    heads = [dict(common, **head_arguments(first)), dict(common, type="OCRHead", ocr_channels=8)]
    model = loaded(camvid, make_config, type="CascadeEncoderDecoder", num_stages=2, decode_head=heads)
    image = str(camvid / "val" / "a.png")
    if first == "FullyConvolutionalHead":
        with pytest.raises(UserError, match=r"FullyConvolutionalHead \+ OCRHead has no attention"):
            apis.attention_maps(model, image, [(1, 1)])
        return
    expected = "decode_head.0.pam" if first == "DANetHead" else "decode_head.0"
    assert list(apis.attention_maps(model, image, [(1, 1)])) == [expected]
    assert list(apis.attention_maps(apis.prepare_for_inference(model), image, [(1, 1)])) == [expected]


@pytest.mark.parametrize("name", ["DANetHead", "PSANetHead", "NonLocalHead"])
def test_however_the_model_is_compiled(camvid, make_config, name):
    """Compiled code calls no hooks. The model stays compiled, and the process's stance as it is."""
    image = str(camvid / "val" / "a.png")
    model = loaded(camvid, make_config, HEADS[name])
    expected = apis.attention_maps(model, image, [(30, 30)])
    prepared = apis.prepare_for_inference(model, compile=True)
    part = copy.deepcopy(model)
    part.backbone, part.decode_head = (
        torch.compile(x, backend="eager") for x in (part.backbone, part.decode_head)
    )
    inside = copy.deepcopy(model)
    inside.compile(backend="eager")
    for compiled in (prepared, part, inside, torch.compile(model, backend="eager")):
        forward = vars(compiled).get("forward")
        found = apis.attention_maps(compiled, image, [(30, 30)])
        assert found.keys() == expected.keys()
        for path, maps in found.items():
            np.testing.assert_allclose(maps.rows, expected[path].rows, rtol=1e-4, atol=1e-7)
        assert vars(compiled).get("forward") is forward
    assert isinstance(prepared.backbone.forward, CompiledForward)


def test_a_model_whose_parts_recompute(camvid, make_config):
    image = str(camvid / "val" / "a.png")
    model = loaded(camvid, make_config)
    expected = apis.attention_maps(model, image, [(30, 30)])["decode_head.pam"].rows
    recompute(model, ["decode_head.pam", "backbone.layer1", "decode_head"])
    assert (apis.attention_maps(model, image, [(30, 30)])["decode_head.pam"].rows == expected).all()


CALLS = dict(
    maps=lambda model, image, _: apis.attention_maps(model, image, [(1, 1)]),
    predict=lambda model, image, _: apis.predict(model, image),
    large=lambda model, image, folder: apis.predict_large(model, image, folder / "labels.tif"),
)


def state(model: torch.nn.Module) -> list:
    """All that hangs on a model: hooks, attributes and the tensors themselves."""
    return [
        (
            path,
            {key: dict(value) if isinstance(value, dict) else value for key, value in vars(module).items()},
        )
        for path, module in model.named_modules()
    ]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("call", sorted(CALLS))
def test_nothing_is_left_on_the_model(camvid, tmp_path, make_config, monkeypatch, call, error):
    """Neither after a call nor during it, when other threads see the model, nor when it is interrupted."""
    model = loaded(camvid, make_config)
    model.train(call == "maps")  # they are those of the trained model, whatever mode it is in
    weights = copy.deepcopy(model.state_dict())
    before, during = state(model), []

    def forward(self, inputs):
        during.append(state(model))
        if error:
            raise error
        return self.cls_seg(self._forward_feature(inputs))

    monkeypatch.setattr(danseg.heads.DANetHead, "forward", forward)
    with pytest.raises(error) if error else nullcontext():
        CALLS[call](model, camvid / "val" / "a.png", tmp_path)
    assert during == [before] and state(model) == before
    for name, value in model.state_dict().items():  # batch statistics too, though the model is in training
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize("call", ["large", "predict"])
def test_a_model_in_training_mode_is_refused(camvid, tmp_path, make_config, call):
    model = loaded(camvid, make_config).train()
    weights = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"EncoderDecoder is in training mode.* model\.eval\(\)"):
        CALLS[call](model, camvid / "val" / "a.png", tmp_path)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
