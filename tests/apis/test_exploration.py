"""An exploration's labels, probabilities, attention and effects: from predict, plain torch and by hand."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from danseg import apis
from danseg.apis import exploration as module
from danseg.attention.parts.views import ShowsAttention, View
from danseg.errors import UserError
from danseg.export.exported_network import is_exported
from danseg.visualization import AttentionMaps, AttentionWeights

POSITIONS = [(0, 0), (71, 59), (10, 50), (35, 20)]
SLIDE = dict(mode="slide", crop_size=(32, 32), stride=(24, 24))


@pytest.fixture
def make(camvid, make_config):
    """``make(head, scale=..., size_divisor=..., mode=..., **model)``: a network whose weights matter."""

    def build(head: dict | None = None, config_settings: dict | None = None, **changes) -> nn.Module:
        head = head or dict(type="DANetHead", pam_channels=4)
        config = make_config(camvid, head=head, **(config_settings or {}))
        config.model.update(changes)
        torch.manual_seed(0)
        model = apis.load_model(config, None, "cpu")
        for name, value in model.state_dict().items():
            if name.endswith("gamma.scale"):
                value.fill_(0.7)
            elif value.dim() > 1:
                value.normal_(std=0.2)
        return model

    return build


@pytest.fixture
def picture(camvid):
    return str(camvid / "val" / "a.png")


SETTINGS = {
    "whole": dict(),
    "padded": dict(size_divisor=32),
    "squeezed": dict(scale=(40, 48)),
    "enlarged": dict(scale=(96, 80), size_divisor=64),
}
HEADS = {
    "danet": dict(type="DANetHead", pam_channels=4),
    "corners": dict(type="DANetHead", pam_channels=4, align_corners=True),
    "attention": dict(type="AttentionHead", attention=dict(type="PositionAttention")),
    "sigmoid": dict(type="DANetHead", pam_channels=4, num_classes=2, out_channels=1, threshold=0.6),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_labels_and_probabilities_are_those_of_prediction(make, picture, make_config, camvid, settings, head):
    own = HEADS[head]
    if "out_channels" in own:
        model = _single_class(make_config, camvid, own, SETTINGS[settings])
    else:
        model = make(own, SETTINGS[settings])
    explored = apis.explore(model, picture)
    assert np.array_equal(explored.labels, apis.predict(model, picture))
    assert explored.labels.dtype == np.int64 and len(np.unique(explored.labels)) > 1
    assert np.array_equal(explored.image, apis.read_picture(model, picture))
    [(labels, probabilities)] = _probabilities(model, picture)
    assert np.array_equal(explored.labels, labels)
    for x, y in POSITIONS:
        found = explored.probabilities((x, y))
        assert found.dtype == np.float32 and found.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(found, probabilities[:, y, x], atol=1e-4)


def _single_class(make_config, camvid, head, settings):
    config = make_config(camvid, head={k: head[k] for k in ("type", "pam_channels")}, **settings)
    config.model.decode_head.update(head)
    config.test_dataloader.dataset.update(type="BaseSegDataset", metainfo=dict(classes=["no", "yes"]))
    torch.manual_seed(0)
    model = apis.load_model(config, None, "cpu")
    for value in model.state_dict().values():
        if value.dim() > 1:
            value.normal_(std=0.2)
    return model


def _probabilities(model, picture):
    from danseg.apis.predict import prepared_batch
    from danseg.segmentors import predict_probabilities

    data = model.data_preprocessor(prepared_batch(model, picture), training=False)
    found = predict_probabilities(model, **data)
    return [(labels.numpy(), probabilities.numpy()) for labels, probabilities in found]


def test_a_config_that_tests_by_windows_is_explored_as_a_whole(make, picture):
    whole, windows = make(), make(config_settings=dict(mode=SLIDE))
    explored = apis.explore(windows, picture)
    assert np.array_equal(explored.labels, apis.predict(whole, picture))
    assert not np.array_equal(explored.labels, apis.predict(windows, picture))
    assert windows.test_cfg.mode == "slide"
    effects = [apis.explore(model, picture).effect("decode_head.pam") for model in (whole, windows)]
    assert np.array_equal(effects[0].labels, effects[1].labels)


@pytest.mark.parametrize("kind", ["grey", "array", "bgr", "unit", "bytes", "tensor"])
def test_every_kind_of_picture(make, picture, camvid, kind):
    model, pixels = make(), cv2.imread(picture)[..., ::-1].copy()
    given, how = {
        "grey": (str(camvid / "grey.png"), {}),
        "array": (pixels, {}),
        "bgr": (pixels[..., ::-1].copy(), dict(channel_order="bgr")),
        "unit": (pixels.astype(np.float32) / 255, dict(unit_range=True)),
        "bytes": ((camvid / "val" / "a.png").read_bytes(), {}),
        "tensor": (torch.from_numpy(pixels).permute(2, 0, 1), {}),
    }[kind]
    if kind == "grey":
        cv2.imwrite(given, cv2.imread(picture, cv2.IMREAD_GRAYSCALE))
    explored = apis.explore(model, given, **how)
    assert np.array_equal(explored.labels, apis.predict(model, given, **how))
    assert np.array_equal(explored.image, apis.read_picture(model, given, **how))


@pytest.mark.parametrize("last", ["FCNHead", "OCRHead"])
def test_a_cascade_and_heads_that_predict_in_their_own_way(make, make_config, camvid, picture, last):
    config = make_config(camvid)
    common = {**config.model.decode_head}
    for key in ("type", "pam_channels"):
        common.pop(key)
    first = dict(common, type="DANetHead", pam_channels=4)
    if last == "OCRHead":
        heads = [first, dict(common, type="OCRHead", ocr_channels=8)]
        model = make(type="CascadeEncoderDecoder", num_stages=2, decode_head=heads)
        path = "decode_head.0.pam"
    else:
        model, path = make(), "decode_head.pam"
        predict_by_feat = type(model.decode_head).predict_by_feat

        class Own(type(model.decode_head)):
            """Its classes in another order than its logits."""

            def predict_by_feat(self, logits, metas):
                return predict_by_feat(self, logits, metas).flip(1)

        model.decode_head.__class__ = Own
    explored = apis.explore(model, picture)
    assert np.array_equal(explored.labels, apis.predict(model, picture))
    [(_, probabilities)] = _probabilities(model, picture)
    np.testing.assert_allclose(explored.probabilities((35, 20)), probabilities[:, 20, 35], atol=1e-5)
    effect = explored.effect(path, [(35, 20)])
    assert effect.with_attention.shape == (1, len(probabilities)) and effect.largest_change > 0
    best = int(effect.without[0].argmax())
    assert effect.labels[20, 35] == best


@pytest.mark.parametrize("how", [dict(), dict(precision="bfloat16"), dict(compile=True)])
def test_prepared_models(make, picture, how):
    model = make()
    prepared = apis.prepare_for_inference(model, **how)
    explored, plain = apis.explore(prepared, picture), apis.explore(model, picture)
    if "compile" not in how:  # compiled sums are rounded in another order
        assert np.array_equal(explored.labels, apis.predict(prepared, picture))
    assert (explored.labels == plain.labels).mean() > (0.9 if how.get("precision") else 0.99)
    tolerance = 0.2 if how.get("precision") else 1e-3
    for key in plain.views:
        found, expected = (one.attention(key, POSITIONS) for one in (explored, plain))
        rows = [getattr(one, "rows", getattr(one, "weights", None)) for one in (found, expected)]
        assert rows[0].dtype == np.float32
        np.testing.assert_allclose(rows[0], rows[1], rtol=tolerance, atol=tolerance * rows[1].max())
    found, expected = (one.effect("decode_head.cam") for one in (explored, plain))
    assert found.largest_change == pytest.approx(expected.largest_change, rel=tolerance)


class _Doubled:
    """A hook that makes a network's input float64."""

    def __call__(self, part, args):
        return (args[0].double(),)


def in_double(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model).double()
    model.backbone.register_forward_pre_hook(_Doubled())
    return model


@pytest.mark.parametrize("path", ["decode_head.pam", "decode_head.cam"])
def test_the_effect_of_a_branch_is_that_of_its_scale_at_zero(make, picture, path):
    model = in_double(make())
    explored = apis.explore(model, picture)
    effect = explored.effect(path, POSITIONS)
    assert effect.scale == pytest.approx(0.7)
    off = copy.deepcopy(model)
    nn.init.zeros_(off.get_submodule(path).gamma.scale)
    without = apis.explore(off, picture)
    assert np.array_equal(effect.labels, without.labels)
    assert effect.changed == (explored.labels != without.labels).mean() > 0
    [expected] = [off.decode_head.forward(off.extract_feat(_input(off, picture)))[0]]
    [before] = [model.decode_head.forward(model.extract_feat(_input(model, picture)))[0]]
    assert effect.largest_change == pytest.approx((expected - before).abs().max().item(), rel=1e-5)
    for row, (x, y) in zip(effect.without, POSITIONS, strict=True):
        np.testing.assert_allclose(_softmax(row), without.probabilities((x, y)), atol=1e-6)
    for row, (x, y) in zip(effect.with_attention, POSITIONS, strict=True):
        np.testing.assert_allclose(_softmax(row), explored.probabilities((x, y)), atol=1e-6)
    nothing = without.effect(path)
    assert nothing.scale == 0 and nothing.changed == 0 and nothing.largest_change == 0
    assert nothing.with_attention.shape == nothing.without.shape == (0, 11)


def _input(model, picture):
    from danseg.apis.predict import prepared_batch

    return model.data_preprocessor(prepared_batch(model, picture), training=False)["inputs"]


def _softmax(row: np.ndarray) -> np.ndarray:
    exp = np.exp(row - row.max())
    return exp / exp.sum()


def test_the_effect_is_kept_and_the_picture_is_not_asked_with_other_weights(make, picture, monkeypatch):
    explored = apis.explore(make(), picture)
    first = explored.effect("decode_head.pam")
    monkeypatch.setattr(module, "image_logits", None)
    again = explored.effect("decode_head.pam", [(3, 4)])
    assert np.array_equal(again.labels, first.labels) and again.largest_change == first.largest_change
    with pytest.raises(TypeError):
        explored.effect("decode_head.cam")


def test_threads_explore_one_model_and_ask_one_exploration(make, picture, camvid):
    model = make()
    pictures = [picture, str(camvid / "val" / "b.png")] * 2
    alone = {path: answers(apis.explore(model, path)) for path in set(pictures)}
    with ThreadPoolExecutor(4) as pool:
        for path, found in zip(
            pictures, pool.map(lambda p: answers(apis.explore(model, p)), pictures), strict=True
        ):
            assert_equal(found, alone[path])
        shared = apis.explore(model, picture)
        for found in pool.map(lambda _: answers(shared), range(4)):
            assert_equal(found, alone[picture])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_an_effect_does_not_disturb_what_others_ask_meanwhile(make, picture):
    """One thread stands in the pass without a module's attention; the others' answers are as before."""
    model = make()
    expected = answers(apis.explore(model, picture))
    explored = apis.explore(model, picture)
    inside, goes_on = threading.Event(), threading.Event()
    logits = module.image_logits

    def waiting(own, **data):
        inside.set()
        assert goes_on.wait(60)
        return logits(own, **data)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(module, "image_logits", waiting)
        effect = pool.submit(explored.effect, "decode_head.cam")
        assert inside.wait(60)
        patch.setattr(module, "image_logits", logits)
        try:
            assert_equal(answers(apis.explore(model, picture)), expected)
            assert np.array_equal(apis.predict(model, picture), expected["labels"])
            for key in explored.views:
                explored.attention(key, POSITIONS)
        finally:
            goes_on.set()
        assert np.array_equal(effect.result().labels, expected["decode_head.cam off"])


def answers(explored: apis.Exploration) -> dict[str, np.ndarray]:
    found = {"labels": explored.labels, "probabilities": explored.probabilities((3, 4))}
    for key in explored.views:
        shown = explored.attention(key, POSITIONS)
        found[key] = shown.rows if isinstance(shown, AttentionMaps) else shown.weights
    for path in explored.modules:
        found[f"{path} off"] = explored.effect(path).labels
    return found


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_what_is_shown_may_be_written_into(make, picture):
    explored = apis.explore(make(), picture)
    for key in explored.views:
        shown = explored.attention(key, [(3, 4)])
        values = shown.rows if isinstance(shown, AttentionMaps) else shown.weights
        before = values.copy()
        values[:] = -1
        again = explored.attention(key, [(3, 4)])
        assert np.array_equal(again.rows if isinstance(again, AttentionMaps) else again.weights, before)


def test_views_are_asked_by_their_keys(make, picture):
    explored = apis.explore(make(), picture)
    assert list(explored.views) == explored.modules == ["decode_head.pam", "decode_head.cam"]
    maps = explored.attention("decode_head.pam", [(3, 4), (70, 2)])
    assert isinstance(maps, AttentionMaps) and maps.positions == [(3, 4), (70, 2)] and maps.values == "shares"
    np.testing.assert_allclose(maps.rows.sum((1, 2)), 1, rtol=1e-5)
    weights = explored.attention("decode_head.cam", [(3, 4)])
    assert isinstance(weights, AttentionWeights) and weights.kind == "channels"
    assert weights.scale == pytest.approx(0.7) and weights.weights.shape == (16, 16)


def test_the_class_of_a_channel_and_the_channel_of_a_click(make, picture):
    explored = apis.explore(make(config_settings=dict(size_divisor=32)), picture)
    x = (
        explored._recorded["decode_head.cam"].x[0].double().numpy()
    )  # (16, 8, 8), of which 5 x 6 are the picture
    # Of 60 x 72 pixels, 40 x 48 in 64 x 64: the centre of a cell of 8 x 8 lies at 12 x 12 pixels a cell.
    inside, labels = x[:, :5, :6].reshape(16, -1), explored.labels[6::12, 6::12].reshape(-1)
    expected = []
    for channel in (inside - inside.mean(1, keepdims=True)) / inside.std(1, keepdims=True):
        means = {label: channel[labels == label].mean() for label in np.unique(labels)}
        expected.append(max(means, key=lambda label: means[label]))
    assert explored.channel_classes("decode_head.cam").tolist() == expected
    standard = ((inside - inside.mean(1, keepdims=True)) / inside.std(1, keepdims=True)).reshape(16, 5, 6)
    for (px, py), cell in {(0, 0): (0, 0), (71, 59): (4, 5), (30, 13): (1, 2)}.items():
        assert (
            explored.strongest_channel("decode_head.cam", (px, py)) == standard[:, cell[0], cell[1]].argmax()
        )


def test_a_network_of_channels_alone(make, picture):
    head = dict(type="AttentionHead", attention=dict(type="ChannelAttention"))
    model = make(head)
    explored = apis.explore(model, picture)
    [key] = explored.views
    assert explored.attention(key).kind == "channels"
    assert explored.channel_classes(key).shape == (16,)
    with pytest.raises(UserError, match=f"{key} weigh channels or branches and have no maps"):
        apis.attention_maps(model, picture, [(3, 4)])


MISTAKES = {
    "right": (
        lambda one: one.attention("decode_head.pam", [(72, 3)]),
        UserError,
        "x=72, y=3 .*0 to 71.*0 to 59",
    ),
    "below": (lambda one: one.probabilities((3, 60)), UserError, "x=3, y=60 lies outside"),
    "negative": (lambda one: one.effect("decode_head.pam", [(-1, 0)]), UserError, "x=-1, y=0 lies outside"),
    "none": (lambda one: one.attention("decode_head.pam"), UserError, "name at least one position"),
    "a single pair": (lambda one: one.attention("decode_head.pam", (3, 4)), ValueError, "pairs .*got 3"),
    "broken": (lambda one: one.probabilities((3.5, 4)), ValueError, r"whole numbers, got \(3.5, 4\)"),
    "three": (lambda one: one.effect("decode_head.pam", [(1, 2, 3)]), ValueError, r"got \(1, 2, 3\)"),
    "view": (
        lambda one: one.attention("pam", [(1, 1)]),
        UserError,
        "no view 'pam'.*decode_head.pam, decode_head.cam",
    ),
    "module": (lambda one: one.effect("pam"), UserError, "no module 'pam'.*decode_head.pam, decode_head.cam"),
    "channels": (
        lambda one: one.channel_classes("decode_head.pam"),
        UserError,
        "no channels.*decode_head.cam",
    ),
    "channel": (lambda one: one.strongest_channel("decode_head.cam", (99, 0)), UserError, "x=99, y=0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(make, picture, mistake):
    ask, kind, said = MISTAKES[mistake]
    with pytest.raises(kind, match=said):
        ask(apis.explore(make(), picture))


def test_pictures_and_networks_that_cannot_be_explored(make, make_config, camvid, picture, monkeypatch):
    model = make()
    with pytest.raises(UserError, match="no_such.png"):
        apis.explore(model, "no_such.png")
    with pytest.raises(ValueError, match="channel_order"):
        apis.explore(model, np.zeros((9, 9, 3), np.uint8), channel_order="rbg")
    with pytest.raises(UserError, match="FCNHead has no attention to show"):
        apis.explore(make(dict(type="FCNHead", num_convs=1)), picture)
    config = make_config(camvid)
    config.test_dataloader.dataset.pipeline.insert(1, dict(type="RandomFlip", prob=1.0))
    with pytest.raises(UserError, match="mirrors pictures.*RandomFlip"):
        apis.explore(apis.load_model(config, None, "cpu"), picture)
    assert not is_exported(model)  # exported ones: tests/apis/test_exported_models.py


def test_what_is_kept_is_counted(make, picture):
    explored = apis.explore(make(), picture)
    image, labels = 60 * 72 * 3, 60 * 72 * 8
    floats = 3 * 40 * 48 + 11 * 5 * 6 + 2 * 16 * 5 * 6  # input, logits, and a feature map of either branch
    assert explored.nbytes == image + labels + 4 * floats


class Gate(ShowsAttention, nn.Module):
    """A gate for each channel, as squeeze-and-excitation's."""

    def gates(self, x):
        return (10 * x.mean((2, 3)) / x.mean()).sigmoid()

    def forward(self, x):
        return x * self.gates(x)[:, :, None, None]

    def attention_views(self):
        return (View("channels", lambda x: lambda: self.gates(x)[:, None], values="gate"),)

    def without_attention(self, x, out):
        return x * self.gates(x).mean(1)[:, None, None, None]


def test_channels_that_are_not_those_of_the_input_serve_no_class(make, picture):
    class Inside(Gate):
        def attention_views(self):
            return (View("channels", lambda x: lambda: self.gates(x)[:, None, :5], values="gate"),)

    model = make(dict(type="FCNHead", num_convs=1))
    model.backbone.layer4 = nn.Sequential(model.backbone.layer4, Inside())
    explored = apis.explore(model, picture)
    with pytest.raises(
        UserError, match=r"weighs 5 channels inside backbone.layer4.1, not the 64 of its input"
    ):
        explored.channel_classes("backbone.layer4.1")


class Level(Gate):
    """Every channel gets the mean of all gates."""

    def gates(self, x):
        gates = super().gates(x)
        return gates.mean(1, keepdim=True).expand_as(gates)


def test_the_effect_of_gates_within_the_backbone(make, picture):
    model, level = (in_double(make(dict(type="FCNHead", num_convs=1))) for _ in range(2))
    model.backbone.layer4, level.backbone.layer4 = (
        nn.Sequential(one.backbone.layer4, gate) for one, gate in ((model, Gate()), (level, Level()))
    )
    explored = apis.explore(model, picture)
    assert explored.modules == ["backbone.layer4.1"]
    effect, expected = explored.effect("backbone.layer4.1", POSITIONS), apis.explore(level, picture)
    assert np.array_equal(effect.labels, expected.labels) and effect.changed > 0 < effect.largest_change
    logits = expected.effect("backbone.layer4.1", POSITIONS).with_attention
    np.testing.assert_allclose(effect.without, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())
    assert explored.attention("backbone.layer4.1").weights.std() > 0
    assert expected.attention("backbone.layer4.1").weights.std() == pytest.approx(0, abs=1e-7)
