"""int8: which parts of a network compute in 8 bits, how far its labels stay, and what is refused."""

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

from danseg.attention import DualAttention
from danseg.errors import UserError
from danseg.export.description import KEY, Description, Size
from danseg.export.quantisation import kept_in_float32, quantise
from danseg.export.sessions import open_session
from exported_files import described

# The share of pixels whose labels are those in float32, of a network with random weights.
AGREEMENT = 0.95


class Network(nn.Module):
    """Two convolutions, attention between two more, a classifier."""

    def __init__(self, attention: nn.Module, channels: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.attention = attention
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.classifier = nn.Conv2d(channels, 4, 1)

    def forward(self, image):
        x = self.second(self.first(image).relu()).relu()
        return self.classifier(self.last(self.attention(x)).relu())


def network(attention: nn.Module | None = None) -> Network:
    torch.manual_seed(0)
    made = Network(attention or DualAttention(16, query_channels=4)).eval()
    for name, value in made.named_parameters():
        if name.endswith("scale"):
            nn.init.constant_(value, 0.5)
        elif name.endswith("weight") and value.dim() > 1:
            nn.init.kaiming_normal_(value, nonlinearity="relu")
    # So that each class is somewhere the best.
    with torch.no_grad():
        made.classifier.bias -= made(torch.from_numpy(picture(0))).mean((0, 2, 3))
    return made


def picture(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    """(1, 3, height, width) that changes over some pixels, as pictures do."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((1, 3, 6, 8)).astype(np.float32))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").numpy()


def exported(folder, made: nn.Module, description: Description | None = None):
    """A file as danseg writes it, for any size unless the description says another."""
    description = description or described()
    free = {} if description.size.height else {0: "batch", 2: "height", 3: "width"}
    path = folder / "float32.onnx"
    program = torch.export.export(
        made,
        (torch.zeros(2 if free else 1, 3, 32, 48),),
        dynamic_shapes=({axis: torch.export.Dim.DYNAMIC for axis in free},),
    )
    model = torch.onnx.export(
        program, input_names=["image"], output_names=["logits"], opset_version=18, dynamo=True, verbose=False
    ).model_proto
    onnx.helper.set_model_props(model, {KEY: description.to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A network with danseg's dual attention, in float32 and in int8."""
    folder = tmp_path_factory.mktemp("int8")
    source, target = exported(folder, network()), folder / "int8.onnx"
    quantise(source, target, [picture(seed) for seed in range(4)])
    return source, target


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """A network without attention, in float32, for one size."""
    return exported(tmp_path_factory.mktemp("fixed"), network(nn.Identity()), described(size=Size(1, 32, 48)))


def convolutions(path) -> dict[str, bool]:
    """Whether each convolution computes in 8 bits, by its weight's name in PyTorch."""
    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    found = {}
    for node in graph.node:
        if node.op_type == "Conv":
            quantised = [
                makers.get(name) is not None and makers[name].op_type == "DequantizeLinear"
                for name in node.input[:2]
            ]
            weight = makers[node.input[1]].input[0] if quantised[1] else node.input[1]
            found[weight.removesuffix("_quantized").removesuffix(".weight")] = all(quantised)
    return found


def test_convolutions_compute_in_8_bits_and_what_attention_multiplies_does_not(pair):
    source, target = pair
    names = {name for name, module in network().named_modules() if isinstance(module, nn.Conv2d)}
    found = convolutions(target)
    assert set(found) == names and not any(convolutions(source).values())
    assert {name for name, quantised in found.items() if quantised} == {"second", "last"}


def test_the_runtime_computes_products_in_float32(pair, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(pair[1], options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in every_node(onnx.load(options.optimized_model_filepath).graph)]
    assert kinds.count("QLinearConv") == 2
    assert [kind for kind in kinds if "MatMul" in kind and ("Integer" in kind or "QLinear" in kind)] == []
    assert len([kind for kind in kinds if "MatMul" in kind]) == 4  # two of each attention


def every_node(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from every_node(attribute.g)


@pytest.mark.parametrize("runtime", ["ONNX Runtime", "OpenVINO"])
def test_labels_stay_at_any_size(pair, tmp_path, runtime):
    source, target = pair
    if runtime == "OpenVINO":
        target = tmp_path / "int8.xml"
        model = openvino.convert_model(pair[1])
        model.set_rt_info(onnx_description(pair[1]).to_json(), KEY)
        openvino.save_model(model, target, compress_to_fp16=False)
    plain, quantised = open_session(source, "cpu"), open_session(target, "cpu")
    for seed, size in ((9, (32, 48)), (10, (40, 88)), (11, (57, 33))):
        logits = plain(picture(seed, *size))
        found = quantised(picture(seed, *size))
        labels = logits.argmax(1)
        assert len(np.unique(labels)) == 4
        assert (found.argmax(1) == labels).mean() > AGREEMENT
        assert 1e-4 < np.abs(found - logits).max() / np.abs(logits).max() < 0.2


def onnx_description(path) -> Description:
    [text] = [one.value for one in onnx.load(path).metadata_props]
    return Description.from_json(text, path)


def test_the_file_says_that_it_is_int8_and_nothing_else_has_changed(pair):
    source, target = (onnx_description(path) for path in pair)
    assert target.precision == "int8" and source == described()
    assert Description(**{**vars(target), "precision": "float32"}) == source
    assert pair[1].stat().st_size < pair[0].stat().st_size


def test_weights_have_a_range_for_each_channel_and_seven_bits(pair):
    graph = onnx.load(pair[1]).graph
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    for name in ("second", "last"):
        weight = network().get_submodule(name).weight.detach().numpy()
        largest = np.abs(weight).max((1, 2, 3))
        assert np.allclose(values[f"{name}.weight_scale"], largest / 64, rtol=0.02)
        assert np.abs(values[f"{name}.weight_quantized"].astype(int)).max() <= 64


def test_ranges_are_those_of_the_samples(pair, tmp_path):
    scales = {}
    for factor in (1, 3):
        quantise(pair[0], tmp_path / "int8.onnx", [factor * picture(seed) for seed in range(2)])
        values = {
            one.name: onnx.numpy_helper.to_array(one)
            for one in onnx.load(tmp_path / "int8.onnx").graph.initializer
        }
        scales[factor] = values["relu_scale"]
    with torch.no_grad():
        inside = torch.cat([network().first(torch.from_numpy(3 * picture(seed))) for seed in range(2)]).relu()
    assert np.allclose(scales[3], inside.max() / 255) and scales[1] < scales[3]


def graph_of(*nodes: tuple[str, str, str]) -> onnx.GraphProto:
    """A graph of nodes, each a kind, the tensors that it reads and the one that it makes, its name."""
    made = [onnx.helper.make_node(kind, reads.split(), [makes], name=makes) for kind, reads, makes in nodes]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("image", "out")
    ]
    weights = onnx.numpy_helper.from_array(np.zeros((1, 1), np.float32), "w")
    return onnx.helper.make_graph(made, "test", ends[:1], ends[1:], [weights])


@pytest.mark.parametrize("steps", [["Reshape"], ["MaxPool", "Reshape", "Transpose"], ["Mul", "Pad"]])
def test_what_lies_between_a_projection_and_a_product_may_move_its_numbers(steps):
    chain, last = [], "key"
    for number, kind in enumerate(steps):
        chain.append((kind, last, f"between{number}"))
        last = f"between{number}"
    graph = graph_of(
        *[("Conv", "image w", "first"), ("Conv", "first w", "body"), ("Relu", "body", "relu")],
        *[
            ("Conv", "relu w", "query"),
            ("Conv", "relu w", "key"),
            *chain,
            ("MatMul", f"query {last}", "energy"),
        ],
        *[("MatMul", "energy relu", "mixed"), ("Conv", "mixed w", "after"), ("Conv", "after w", "classes")],
        *[("Shape", "body", "shape"), ("Resize", "classes shape", "out")],
    )
    assert kept_in_float32(graph) == {"first", "query", "key", "relu", "classes"}


def test_a_layer_with_weights_is_no_product_of_attention():
    graph = graph_of(
        *[("Conv", "image w", "first"), ("Conv", "first w", "body"), ("Reshape", "body", "flat")],
        *[("MatMul", "flat w", "linear"), ("Conv", "linear w", "classes"), ("ArgMax", "classes", "out")],
    )
    assert kept_in_float32(graph) == {"first", "classes"}


def test_a_file_for_one_size_is_quantised(fixed, tmp_path):
    quantise(fixed, tmp_path / "int8.onnx", [picture(0)])
    assert convolutions(tmp_path / "int8.onnx") == {
        "first": False,
        "second": True,
        "last": True,
        "classifier": False,
    }


def refused(source, samples, said, kind=UserError):
    with pytest.raises(kind, match=said):
        quantise(source, source.with_name("int8.onnx"), samples)


def test_without_pictures_there_is_no_int8(pair):
    refused(pair[0], [], "needs calibration pictures, and there are none: .*train_dataloader")


def test_what_is_no_float32_file_of_danseg_is_refused(pair, tmp_path):
    refused(
        pair[1], [picture(0)], "is in int8, and only a network in float32 can be quantised; export it again"
    )
    nothing = tmp_path / "nothing.onnx"
    nothing.write_bytes(b"\xff not a message" * 9)
    refused(nothing, [picture(0)], "nothing.onnx is damaged, or no .onnx at all")
    refused(tmp_path / "missing.onnx", [picture(0)], "missing.onnx cannot be read: it does not exist")
    foreign = tmp_path / "foreign.onnx"
    model = onnx.load(pair[0])
    del model.metadata_props[:]
    onnx.save(model, foreign)
    refused(foreign, [picture(0)], "danseg did not export it")


def test_a_network_with_nothing_to_quantise_is_refused(tmp_path):
    source = exported(tmp_path, nn.Conv2d(3, 4, 3).eval())
    refused(
        source, [picture(0)], "has no convolution that may compute in 8 bits; export the network in float32"
    )


@pytest.mark.parametrize(
    "sample", [picture(0)[0], picture(0).astype(np.float64), picture(0).transpose(0, 2, 3, 1)[:, :, :, :2]]
)
def test_samples_of_another_form_are_refused(fixed, sample):
    refused(
        fixed, [sample], r"samples must be finite numbers \(1, C, 32, 48\) of float32, got \(", ValueError
    )


def test_numbers_that_are_not_finite_are_refused(pair, tmp_path):
    sample = picture(0)
    sample[0, 0, 3, 4] = np.nan
    refused(pair[0], [picture(1), sample], "must be finite numbers", ValueError)
    model = onnx.load(pair[0])
    for one in model.graph.initializer:
        if one.name == "second.bias":
            one.raw_data = np.full(16, np.inf, np.float32).tobytes()
    damaged = tmp_path / "damaged.onnx"
    onnx.save(model, damaged)
    refused(damaged, [picture(1)], "numbers are not finite for the calibration pictures")
