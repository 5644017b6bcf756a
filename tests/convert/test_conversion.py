import hashlib
import re
from pathlib import Path

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
from danseg.convert.conversion import SOURCES, _check_layout, _renamed
from danseg.convert.foreign_file import ForeignFile, Tensors
from danseg.engine.checkpoints.checkpoint import load_weights
from danseg.engine.config.agreement import check_agreement
from danseg.engine.config.config_file import load_config
from danseg.errors import UserError


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
def test_the_written_file_is_for_its_config(source, weights, brought):
    converted = brought(source, weights)
    check_agreement(load_config(converted.config), "test")
    stored = torch.load(converted.checkpoint, weights_only=True)["meta"]
    assert stored["converted_from"]["layout"] == source
    assert (
        stored["converted_from"]["sha256"]
        == hashlib.sha256(Path(stored_file(converted)).read_bytes()).hexdigest()
    )
    assert converted.tensors + len(converted.left_out) == len(weights)
    assert ("cfg" in stored) != converted.backbone


def stored_file(converted) -> Path:
    """The file that was converted, two folders up."""
    return converted.checkpoint.parents[1] / "theirs.pth"


def test_a_loaded_network_is_the_converted_one_to_the_bit(layouts, brought, image):
    converted = brought("danet", layouts["danet"])
    in_memory = exact_model(converted).float()
    loaded = load_model(converted.config, converted.checkpoint, device="cpu")
    load_weights(loaded, converted.checkpoint)
    for images in (image.float(), image[..., :40, :50].float()):
        assert torch.equal(*(one.decode_head(one.extract_feat(images)) for one in (in_memory, loaded)))


@every_source
def test_a_tensor_from_which_something_follows_is_named(source, weights, brought, tmp_path):
    marks = {"mmseg": "backbone.conv1.weight", "danet": "head.conv8.1.weight", "semseg": "layer0.0.weight"}
    name = marks.get(source) or next(iter(weights))
    cut = {n: value for n, value in weights.items() if n != name}
    with pytest.raises(UserError, match=f"1 tensor of the network missing in the file: {re.escape(name)} "):
        brought(source, cut)
    assert _no_files(tmp_path / "ours")


@every_source
def test_every_tensor_without_a_counterpart_is_named(source, weights, brought, tmp_path):
    """Missing ones, others too many, and one of another shape, in one message, by the file's names."""
    block = next(n for n in weights if n.endswith("layer1.0.bn1.weight")).removesuffix("layer1.0.bn1.weight")
    missing = [f"{block}layer3.2.conv3.weight", f"{block}layer4.1.bn3.running_mean"]
    extra = {f"{block}layer1.0.bn1.extra": torch.zeros(3), "ppm.features.0.weight": torch.zeros(2, 5)}
    weights[f"{block}layer2.0.conv1.weight"] = weights[f"{block}layer2.0.conv1.weight"][:, :-1]
    with pytest.raises(UserError) as error:
        brought(source, {n: v for n, v in (weights | extra).items() if n not in missing})
    said = str(error.value).splitlines()
    assert f"--from {source}" in said[0] and len(said) == 5
    assert "2 tensors of the file without a place: " in said[1]
    assert "ppm.features.0.weight (2, 5)" in said[1] and f"{block}layer1.0.bn1.extra (3,)" in said[1]
    assert re.search(
        "  2 tensors of the network missing in the file: " + "(, )?.*".join(map(re.escape, missing)), said[2]
    )
    assert "(backbone.layer3.2.conv3.weight)" in said[2] or source == "mmseg"
    assert re.search(r"1 parameters of another shape: .*layer2\.0\.conv1\.weight .* instead of", said[3])
    assert _no_files(tmp_path / "ours")


@every_source
def test_another_layout_is_recognised(source, weights):
    file = ForeignFile(Path("theirs.pth"), Tensors(weights), {})
    for other in SOURCES:
        if {source, other} <= {"torchvision", "timm"}:
            continue  # timm has the names of torchvision where networks are the same
        if other == source:
            _check_layout(other, file)
            continue
        with pytest.raises(UserError, match=rf"is not in the layout of .* It looks like --from {source}$"):
            _check_layout(other, file)


def test_no_layout_at_all(brought):
    with pytest.raises(UserError, match=r"nor of the others that --from names .*no head\.conv5a.*but a\.b"):
        brought("danet", {"a.b": torch.zeros(3)})


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
    assert config.model.decode_head.align_corners


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


@pytest.mark.parametrize(
    "changed, said",
    [
        (
            {"head.conv8.1.weight": torch.zeros(())},
            r"decode_head\.conv_seg\.weight has the shape \(\), as no layer",
        ),
        ({"head.conv8.1.weight": torch.zeros(0, 4, 1, 1)}, r"has the shape \(0, 4, 1, 1\), as no layer"),
        ({"pretrained.layer1.weird": torch.zeros(3)}, r"without a place: pretrained\.layer1\.weird \(3,\)"),
        (
            {"pretrained.layer1.7.bn1.bias": torch.zeros(3)},
            r"backbone has 8, 4, 6, 3 bottlenecks in its stages",
        ),
        ({"pretrained.conv1.weight": torch.zeros(8, 3, 7, 7).to_sparse()}, "1 weights are not plain tensors"),
    ],
)
def test_tensors_that_no_network_has(changed, said, layouts, brought, tmp_path):
    with pytest.raises(UserError, match=said):
        brought("danet", layouts["danet"] | changed)
    assert _no_files(tmp_path / "ours")


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("model.backbone.foo", 1, r"ours\.py: model\.backbone\.foo=1: ResNet has no argument 'foo'"),
        ("model.backbone", 3, r"ours\.py: model\.backbone=3: give a dict"),
        (
            "model.backbone.multi_grid",
            (1, 2),
            r"ours\.py: model\.backbone \(ResNet\): tuple index out of range",
        ),
        ("crop_sise", 3, r"ours\.py sets crop_sise, which nothing reads; did you mean 'crop_size'"),
    ],
)
def test_options_that_fit_nothing(key, value, said, layouts, brought, tmp_path):
    with pytest.raises(UserError, match=said):
        brought("danet", layouts["danet"], options={key: value})
    assert _no_files(tmp_path / "ours")


@pytest.mark.parametrize(
    "meta", [{"config": "model=3"}, {"dataset_meta": [1]}, {"cfg": "model=dict(backbone=[1])"}]
)
def test_a_meta_of_another_kind_is_one_message_or_without_effect(meta, brought):
    net = Plain()
    danet(net, torch.zeros(1, 3, 33, 33, dtype=torch.float64))
    prefixes = SOURCES["danet"].prefixes(net.weights)
    weights, _, _ = _renamed(net.weights, prefixes)
    try:
        brought("mmseg", {"state_dict": weights, "meta": meta})
    except UserError as error:
        assert "names, shapes or meta are not as mmseg writes them" in str(error)


def test_without_a_recipe_of_the_network_its_data_sets_recipe_is_stood_on(brought):
    converted = brought("ccnet", _weights(ccnet, 21))
    assert converted.base == "danseg::_base_/recipes/voc2012"
    model = load_model(converted.checkpoint, device="cpu")
    assert len(model.dataset_meta["classes"]) == 21
