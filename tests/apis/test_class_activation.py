"""Class activation maps against their equations, written with plain gradients."""

import builtins
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danseg import apis
from danseg.apis.class_activation import METHODS
from danseg.apis.predict import prepared_batch
from danseg.errors import UserError


@pytest.fixture
def picture(camvid):
    return str(camvid / "val" / "a.png")


@pytest.fixture
def make(camvid, make_config):
    def build(head=None, settings=None, **changes):
        config = make_config(camvid, head=head, **(settings or {}))
        config.model.update(changes)
        torch.manual_seed(0)
        model = apis.load_model(config, None, "cpu")
        for name, value in model.state_dict().items():
            if name.endswith("gamma.scale"):
                value.fill_(0.7)
            elif value.dim() > 1:
                # So that features neither grow nor vanish: gradients of a saturated softmax are rounding.
                value.normal_(std=(1 if "conv_seg" in name else 1.4) * value[0].numel() ** -0.5)
        return model

    return build


def plainly(model, picture, layer: str, target, method: str) -> np.ndarray:
    """The map by its equation: the network cut in two by hand at a stage of the backbone, without captum."""
    model = copy.deepcopy(model).requires_grad_(False)
    backbone = model.backbone
    inputs = model.data_preprocessor(prepared_batch(model, picture), training=False)["inputs"]
    with torch.no_grad():
        x = backbone.maxpool(backbone.stem(inputs))
        stages = []
        for name in backbone.res_layers:
            x = getattr(backbone, name)(x)
            stages.append(x.clone())
    at = backbone.res_layers.index(layer)

    def score(a):
        outs = [*stages[:at], a]
        for name in backbone.res_layers[at + 1 :]:
            outs.append(getattr(backbone, name)(outs[-1].clone()))
        logits = model.decode_head.forward(outs)
        logits = logits[0] if isinstance(logits, tuple) else logits
        full = F.interpolate(logits, inputs.shape[2:], mode="bilinear", align_corners=False)
        full = F.interpolate(full, (60, 72), mode="bilinear", align_corners=False)[0]
        if isinstance(target, tuple):
            x, y = target
            return full[full[:, y, x].argmax(), y, x]
        return full[target][full.argmax(0) == target].mean()

    def gradient(a):
        a = a.clone().requires_grad_()
        return torch.autograd.grad(score(a), a)[0]

    a = stages[at]
    if method == "gradcam":
        found = gradient(a).mean((2, 3), keepdim=True) * a
    elif method == "hirescam":
        found = gradient(a) * a
    found = found.sum(1)[0].clamp(min=0).numpy()
    return found / found.max()


def present(model, picture) -> int:
    return int(np.bincount(apis.predict(model, picture).ravel()).argmax())


@pytest.mark.parametrize("layer", ["layer4", "layer3"])
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("of", ["class", "position"])
def test_maps_are_those_of_the_equation(make, picture, layer, method, of):
    model = make()
    target = present(model, picture) if of == "class" else (50, 20)
    found = apis.class_activation_map(model, picture, target, layer=f"backbone.{layer}", method=method)
    expected = plainly(model, picture, layer, target, method)
    np.testing.assert_allclose(found.rows[0], expected, atol=2e-4)
    assert found.rows.max() == 1 and 0 < found.rows.mean() < 1
    assert (found.module, found.view, found.positions) == (f"backbone.{layer}", method, [])
    [name] = found.parts
    assert (
        name
        == model.dataset_meta["classes"][apis.predict(model, picture)[20, 50] if of == "position" else target]
    )
    assert found.over_image().shape == (1, 60, 72)


def test_integrated_gradients_are_the_mean_along_the_way_from_black(make, picture):
    model = make()
    found = apis.class_activation_map(
        model, picture, (50, 20), layer="backbone.layer4", method="integrated-gradients"
    )
    model.requires_grad_(False)
    data = model.data_preprocessor(prepared_batch(model, picture), training=False)["inputs"]
    with torch.no_grad():
        *_, end = model.extract_feat(data)
        *_, begin = model.extract_feat(torch.zeros_like(data))  # normalised: the mean colour
    index = int(apis.predict(model, picture)[20, 50])
    places, weights = np.polynomial.legendre.leggauss(20)
    total = torch.zeros_like(end)
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        a = (begin + place * (end - begin)).requires_grad_()
        logits = model.decode_head.forward([None, None, None, a])
        full = F.interpolate(logits, data.shape[2:], mode="bilinear", align_corners=False)
        full = F.interpolate(full, (60, 72), mode="bilinear", align_corners=False)
        total += weight * torch.autograd.grad(full[0, index, 20, 50], a)[0]
    expected = (total * (end - begin)).sum(1)[0].clamp(min=0)
    np.testing.assert_allclose(found.rows[0], expected / expected.max(), atol=1e-3)


def test_the_default_layer_is_the_last_stage_or_what_the_classifier_gets(make, picture, near_sighted):
    model = make()
    by_name = apis.class_activation_map(model, picture, (50, 20), layer="backbone.layer4")
    found = apis.class_activation_map(model, picture, (50, 20))
    assert found.module == "backbone.layer4" and np.array_equal(found.rows, by_name.rows)
    assert apis.class_activation_map(near_sighted(), picture, (50, 20)).module == "backbone.layers"

    class Wrapped(type(model.backbone)):
        def forward(self, x):
            return tuple(one * 1 for one in super().forward(x))

    model.backbone.__class__ = Wrapped
    found = apis.class_activation_map(model, picture, (50, 20))
    assert found.module == "decode_head.conv_seg"
    # At the classifier the gradient of a position is its weights: the map is the class's own logit.
    with torch.no_grad():
        head, classifier = model.decode_head, model.decode_head.conv_seg
        data = model.data_preprocessor(prepared_batch(model, picture), training=False)
        logits = head.forward(model.extract_feat(data["inputs"]))
        [name] = found.parts
        index = model.dataset_meta["classes"].index(name)
        expected = (logits[0, index] - classifier.bias[index]).clamp(min=0)
    np.testing.assert_allclose(found.rows[0], expected / expected.max(), atol=1e-4)


@pytest.mark.parametrize("how", [dict(), dict(precision="bfloat16")])
def test_prepared_models_padding_and_windows(make, picture, how):
    mode = dict(mode="slide", crop_size=(32, 32), stride=(24, 24))
    model = make(settings=dict(size_divisor=32, mode=mode))
    expected = apis.class_activation_map(model, picture, (50, 20))
    prepared = apis.prepare_for_inference(model, **how)
    found = apis.class_activation_map(prepared, picture, (50, 20))
    assert found.rows.shape == (1, 8, 8) and found.placement.input_size == (64, 64)
    np.testing.assert_allclose(found.rows, expected.rows, atol=0.1 if how else 1e-3)


def test_networks_without_attention_with_one_channel_and_cascades(make, make_config, camvid, picture):
    config = make_config(camvid, head=dict(type="FCNHead", num_convs=1))
    config.model.decode_head.update(num_classes=2, out_channels=1, threshold=0.5)
    config.test_dataloader.dataset.update(type="BaseSegDataset", metainfo=dict(classes=["no", "yes"]))
    torch.manual_seed(0)
    model = apis.load_model(config, None, "cpu")
    for value in model.state_dict().values():
        if value.dim() > 1:
            value.normal_(std=0.2)
    labels = apis.predict(model, picture)
    for name in [("no", "yes")[one] for one in np.unique(labels)]:
        found = apis.class_activation_map(model, picture, name)
        assert found.parts == (name,) and 0 <= found.rows.min() <= found.rows.max() <= 1
    common = {**make_config(camvid).model.decode_head}
    for key in ("type", "pam_channels"):
        common.pop(key)
    heads = [dict(common, type="DANetHead", pam_channels=4), dict(common, type="OCRHead", ocr_channels=8)]
    model = make(type="CascadeEncoderDecoder", num_stages=2, decode_head=heads)
    for method in METHODS:
        assert apis.class_activation_map(model, picture, (50, 20), method=method).rows.max() == 1


def test_the_model_stays_as_it_was(make, picture):
    model = make().train()
    weights = copy.deepcopy(model.state_dict())
    with torch.no_grad():  # its own gradients are taken all the same
        for method in METHODS:
            assert apis.class_activation_map(model, picture, (50, 20), method=method).rows.any()
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


ASKS_FOR_GRADIENTS: list[bool] = []


class Spy(nn.Module):
    """Notes whether what comes by is kept for gradients."""

    def forward(self, x):
        ASKS_FOR_GRADIENTS.append(x.requires_grad)
        return x


def test_what_lies_before_the_layer_keeps_nothing_for_gradients(make, picture):
    model = make()
    model.backbone.layer2 = nn.Sequential(model.backbone.layer2, Spy())
    for layer, kept in (("backbone.layer3", False), ("backbone.layer1", True)):
        ASKS_FOR_GRADIENTS.clear()
        apis.class_activation_map(model, picture, (50, 20), layer=layer)
        assert ASKS_FOR_GRADIENTS[-1] is kept and len(ASKS_FOR_GRADIENTS) > 1


MISTAKES = {
    "method": (
        dict(method="cam"),
        "method must be one of gradcam, hirescam, integrated-gradients, got 'cam'",
    ),
    "class": (dict(target="cars"), "no class 'cars'; there are sky, .*did you mean 'car'"),
    "id": (dict(target=11), "class ids go from 0 to 10, got 11"),
    "position": (dict(target=(72, 0)), "x=72, y=0 lies outside"),
    "layer": (
        dict(layer="backbone.layer5"),
        r"is no module.*; there are backbone\.layer1.*did you mean 'backbone\.layer4'",
    ),
    "no map": (dict(layer="decode_head"), r"'decode_head' gives no feature map.*backbone\.layer1"),
    "no way": (dict(layer="decode_head.pam_conv_seg"), r"'decode_head\.pam_conv_seg' gives no feature map"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(make, picture, mistake):
    arguments, said = MISTAKES[mistake]
    with pytest.raises(UserError, match=said):
        apis.class_activation_map(make(), picture, **{"target": (3, 4), **arguments})


def test_a_class_that_no_pixel_has(make, picture):
    model = make()
    labels = apis.predict(model, picture)
    classes = model.dataset_meta["classes"]
    absent = next(id for id in range(11) if id not in labels)
    with pytest.raises(UserError, match=f"no pixel .* labelled {classes[absent]}; there are .*or a position"):
        apis.class_activation_map(model, picture, absent)


def test_without_captum_the_extra_is_named(make, picture, monkeypatch):
    real = builtins.__import__

    def importing(name, *args, **kwargs):
        if name.startswith("captum"):
            raise ImportError("No module named 'captum'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(UserError, match=r"captum.*pip install 'danseg\[class-activation\]'"):
        apis.class_activation_map(make(), picture, (3, 4))


def test_a_layer_on_no_way_to_the_logit(make, picture):
    model = make()
    model.decode_head.pam.gamma.scale.data.zero_()

    class Unused(type(model.decode_head)):
        def _forward_feature(self, inputs):
            self.pam_in_conv(inputs[-1])
            return self.cam_out_conv(self.cam(self.cam_in_conv(inputs[-1])))

    model.decode_head.__class__ = Unused
    with pytest.raises(
        UserError, match=r"does not depend on decode_head\.pam_in_conv: name a layer on the way"
    ):
        apis.class_activation_map(model, picture, (3, 4), layer="decode_head.pam_in_conv")
