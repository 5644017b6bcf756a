import pickle
import re

import pytest
import torch

from authors_networks import (
    Plain,
    ccnet,
    classifier,
    danet,
    psanet,
    pyramid_split,
    split_attention,
    torchvision_fcn,
)
from converted_networks import exact_model
from danseg.apis import load_model
from danseg.convert import convert
from danseg.convert.conversion import SOURCES
from danseg.engine.checkpoints.checkpoint import load_weights
from danseg.engine.config.agreement import check_agreement
from danseg.engine.config.config_file import load_config
from danseg.errors import UserError
from danseg.mmseg_import import building_quietly


def _weights(make, *arguments, **how) -> dict[str, torch.Tensor]:
    net = Plain(counters=make is not ccnet)
    make(net, torch.zeros(1, 3, 33, 33, dtype=torch.float64), *arguments, **how)
    return net.weights


@pytest.fixture(scope="module")
def layouts() -> dict[str, dict[str, torch.Tensor]]:
    """A checkpoint's tensors in each layout; mmseg's are those that a conversion makes."""
    return {
        "danet": _weights(danet),
        "ccnet": _weights(ccnet),
        "semseg": _weights(psanet),
        "torchvision": _weights(torchvision_fcn),
        "timm": _weights(classifier, stem=4, pooled=True),
        "epsanet": _weights(classifier, base=16, conv2=pyramid_split()),
        "resnest": _weights(classifier, stem=4, pooled=True, conv2=split_attention()),
    }


@pytest.fixture
def weights(layouts, brought, request) -> dict[str, torch.Tensor]:
    """Those of the layout that the test is given as ``source``."""
    source = request.getfixturevalue("source")
    if source != "mmseg":
        return dict(layouts[source])
    net = Plain()
    torchvision_fcn(net, torch.zeros(1, 3, 33, 33, dtype=torch.float64), 19)
    names = {"classifier": "decode_head", "aux_classifier": "auxiliary_head"}
    inner = {"0": "convs.0.conv", "1": "convs.0.bn", "4": "conv_seg"}
    found = {}
    for name, value in net.weights.items():
        first, second, *rest = name.split(".")
        words = [names[first], inner[second], *rest] if first in names else [first, second, *rest]
        found[".".join(words)] = value
    return found


every_source = pytest.mark.parametrize("source", SOURCES)


def _no_files(folder) -> bool:
    """Whether a failed conversion has left nothing behind."""
    return not folder.exists() or not any(folder.iterdir())


@every_source
def test_the_written_file_fits_its_config_and_is_loaded_to_the_bit(source, weights, brought, image):
    converted = brought(source, weights)
    config = load_config(converted.config)
    check_agreement(config, "test")
    stored = torch.load(converted.checkpoint, weights_only=True)
    assert stored["meta"]["converted_from"]["layout"] == source
    assert len(stored["meta"]["converted_from"]["sha256"]) == 64
    assert converted.tensors + len(converted.left_out) == len(weights)
    if converted.backbone:
        return
    in_memory = exact_model(converted).float()
    loaded = load_model(converted.config, converted.checkpoint, device="cpu")
    load_weights(loaded, converted.checkpoint)
    for images in (image.float(), image[..., :40, :50].float()):
        ours = [one.decode_head(one.extract_feat(images)) for one in (in_memory, loaded)]
        assert torch.equal(*ours)


@every_source
def test_a_tensor_that_is_missing_is_named_on_both_sides(source, weights, brought, tmp_path):
    for name in [next(iter(weights)), "layer3.2.conv3.weight", *list(weights)[-3:]]:
        name = next(n for n in weights if n.endswith(name))
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        cut = {n: value for n, value in weights.items() if n != name}
        with pytest.raises(UserError, match=f"missing in the file: {re.escape(name)} ") as error:
            brought(source, cut)
        if source != "mmseg":  # whose names are the network's
            assert re.search(
                r"1 tensor of the network missing .*\((backbone|decode_head|auxiliary)", str(error.value)
            )
        assert _no_files(tmp_path / "ours")


@every_source
def test_tensors_too_many_are_named(source, weights, brought, tmp_path):
    inner = next(n for n in weights if n.endswith("layer1.0.bn1.weight")).removesuffix("weight")
    extra = {f"{inner}extra": torch.zeros(3), "ppm.features.0.weight": torch.zeros(2, 5)}
    with pytest.raises(UserError, match=r"2 tensors of the file without a place: ") as error:
        brought(source, weights | extra)
    assert "ppm.features.0.weight (2, 5)" in str(error.value) and f"{inner}extra (3,)" in str(error.value)
    assert _no_files(tmp_path / "ours")


@every_source
def test_another_shape_is_named(source, weights, brought, tmp_path):
    name = next(n for n in weights if n.endswith("layer2.0.conv1.weight"))
    weights[name] = weights[name][:, :-1]
    with pytest.raises(
        UserError, match=r"1 parameters of another shape: .*layer2\.0\.conv1\.weight .* instead of"
    ):
        brought(source, weights)
    assert _no_files(tmp_path / "ours")


@every_source
def test_another_layout_is_recognised(source, weights, brought, tmp_path):
    for other in SOURCES:
        if SOURCES[other].recognises(weights):
            continue
        with pytest.raises(UserError, match=r"is not in the layout of .* It looks like --from") as error:
            brought(other, weights)
        assert re.search(rf"--from {source}\b", str(error.value))
    assert _no_files(tmp_path / "ours")


def test_no_layout_at_all(brought):
    with pytest.raises(UserError, match=r"nor of the others that --from names .*no head\.conv5a.*but a\.b"):
        brought("danet", {"a.b": torch.zeros(3)})


@pytest.mark.parametrize("wrap", [
    lambda w: {"state_dict": w},
    lambda w: {"model": {f"module.{n}": v for n, v in w.items()}, "epoch": 3},
    lambda w: {"epoch": 1, "model": {"state_dict": w}},
    lambda w: {"net": {f"_orig_mod.module.{n}": v for n, v in w.items()}},
    lambda w: {f"module._orig_mod.{n}": v for n, v in w.items()},
])  # fmt: skip
def test_wrappers_are_looked_through(wrap, layouts, brought):
    converted = brought("danet", wrap(layouts["danet"]))
    found = torch.load(converted.checkpoint)["state_dict"]
    assert torch.equal(found["decode_head.conv_seg.weight"], layouts["danet"]["head.conv8.1.weight"])


@pytest.mark.parametrize("shape", [(1,), ()])
def test_gammas_of_either_shape(shape, layouts, brought):
    gamma = layouts["danet"]["head.sa.gamma"].reshape(shape)
    converted = brought("danet", layouts["danet"] | {"head.sa.gamma": gamma})
    found = torch.load(converted.checkpoint)["state_dict"]["decode_head.pam.gamma.scale"]
    assert found.shape == () and found == gamma.item() and found != 0


def test_counters_of_norms_are_made_up_for(layouts, brought):
    without = {n: v for n, v in layouts["danet"].items() if not n.endswith("num_batches_tracked")}
    found = torch.load(brought("danet", without).checkpoint)["state_dict"]
    counters = [value for name, value in found.items() if name.endswith("num_batches_tracked")]
    assert counters and all(value == 0 and value.dtype == torch.int64 for value in counters)


class _Runs:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    "write, said",
    [
        (lambda path: path.write_bytes(pickle.dumps({"state_dict": _Runs()})), "could run code"),
        (lambda path: torch.save({"meta": _Runs(), "state_dict": {}}, path), "could run code"),
        (lambda path: (torch.save({"a": torch.zeros(9)}, path), path.write_bytes(path.read_bytes()[:-60])), "cut off"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("no weights"), "neither a PyTorch checkpoint"),
        (lambda path: torch.save({"state_dict": {"a": 3, "b": "x"}}, path), "2 entries that are no tensors: a, b"),
        (lambda path: torch.save({"epoch": 3}, path), "1 entry that are no tensors: epoch"),
        (lambda path: torch.save({}, path), "holds no tensors"),
        (lambda path: torch.save([torch.zeros(3)], path), "holds a list"),
        (lambda path: None, "does not exist"),
    ],
)  # fmt: skip
def test_files_that_are_refused(write, said, tmp_path, capsys):
    write(tmp_path / "bad.pth")
    with pytest.raises(UserError, match=said):
        convert("danet", tmp_path / "bad.pth", tmp_path / "ours" / "ours.pth")
    assert "ran" not in capsys.readouterr().out and _no_files(tmp_path / "ours")


def test_weights_that_no_network_can_use(layouts, brought, tmp_path):
    name = "head.conv8.1.bias"
    bad = layouts["danet"][name].clone()
    bad[3] = torch.nan
    with pytest.raises(UserError, match=r"hold NaN or infinity: decode_head\.conv_seg\.bias"):
        brought("danet", layouts["danet"] | {name: bad})
    assert _no_files(tmp_path / "ours")


def test_nothing_is_overwritten(layouts, brought, tmp_path):
    (tmp_path / "ours").mkdir()
    for name in ("ours.pth", "ours.py"):
        there = tmp_path / "ours" / name
        there.write_text("mine")
        with pytest.raises(UserError, match=rf"{name} exists, and would be overwritten"):
            brought("danet", layouts["danet"])
        assert there.read_text() == "mine"
        there.unlink()


@pytest.mark.parametrize("name", ["ours", "ours.safetensors", "ours.py"])
def test_the_written_file_is_a_pth(name, tmp_path):
    with pytest.raises(UserError, match=r"name a file that ends in \.pth"):
        convert("danet", tmp_path / "theirs.pth", tmp_path / name)


def test_an_unknown_source():
    with pytest.raises(ValueError, match="must be one of mmseg, danet, .*, got 'pspnet'"):
        convert("pspnet", "a.pth", "b.pth")


def test_a_network_of_another_dataset_is_for_ones_own_data(brought):
    converted = brought("danet", _weights(danet, 59))
    assert converted.base == "danseg::danet_r50_folder" and converted.needs_data
    assert converted.settings["num_classes"] == 59
    config = load_config(converted.config)
    assert (config.model.decode_head.num_classes, config.num_classes) == (59, 59)
    assert "--data SET" in converted.described()
    with building_quietly():
        assert load_config(converted.config).model.decode_head.align_corners


def test_a_config_of_the_users_is_stood_on(layouts, brought, tmp_path):
    (tmp_path / "mine.py").write_text(
        '_base_ = "danseg::fcn_r50_cityscapes"\nimage_scale = (1025, 513)\n', encoding="utf-8"
    )
    converted = brought("danet", layouts["danet"], config=tmp_path / "mine.py")
    assert converted.base == "../mine.py"
    config = load_config(converted.config)
    assert config.model.decode_head.type == "DANetHead" and "num_convs" not in config.model.decode_head
    assert config.image_scale == (1025, 513) and config.crop_size == (769, 769)
    assert load_model(converted.config, converted.checkpoint, device="cpu").decode_head.pam_channels == 8


def test_options_win_and_are_written(layouts, brought):
    options = {"model.test_cfg.stride": (100, 100), "data_root": "elsewhere"}
    converted = brought("danet", layouts["danet"], options=options)
    config = load_config(converted.config)
    assert config.model.test_cfg.stride == (100, 100)
    assert config.test_dataloader.dataset.data_root == "elsewhere"
