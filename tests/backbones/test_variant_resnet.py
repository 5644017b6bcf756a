"""VariantResNet: published sizes, equality with mmseg's networks, and the same tests for every ``conv2``."""

import copy

import pytest
import torch
from mmseg.models.backbones import ResNeSt, ResNet
from mmseg.registry import MODELS
from torch import nn
from torch.nn import functional as F

import danseg  # noqa: F401  (registers VariantResNet and the attention modules)
from cpu_alone import cpu_alone, one_on_gpu
from danseg.backbones import VariantResNet
from danseg.backbones.variant_resnet import CONV2
from danseg.ops import reference
from deterministic import deterministic

# Widths that stay divisible with 8 base channels in place of 64.
WIDTHS = dict(res2net=128, hs_resnet=80)
# A batch norm or a softmax after them cancels these.
ZERO_GRADIENT = ("conv2.fc1.bias", "conv2.dual.pam.key_project.bias")

every_conv2 = pytest.mark.parametrize("kind", list(CONV2))
every_conv2_and_one_on_gpu = pytest.mark.parametrize("kind", one_on_gpu(CONV2))


def build(kind: str, **changes) -> VariantResNet:
    """A network of 8 channels in place of 64, in evaluation mode, with no weight at a trivial value."""
    torch.manual_seed(0)
    arguments = dict(depth=50, conv2=kind, base_channels=8, stem_channels=8, base_width=WIDTHS.get(kind))
    return draw(MODELS.build(dict(type="VariantResNet", **{**arguments, **changes})))


def draw(net: nn.Module) -> nn.Module:
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.1, 0.2)
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    for name, parameter in net.named_parameters():
        if name.endswith(("gamma.scale", "se.fc1.bias")):  # a ReLU follows this bias of one channel
            nn.init.constant_(parameter, 0.7)
    net.eval()  # mmseg's eval() returns None
    return net


def image(
    height: int = 65, width: int = 97, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> torch.Tensor:
    drawn = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return drawn.to(device)


def count(build_net, **arguments) -> int:
    """Parameters of the ImageNet classifier: the backbone and a layer of 1000 classes."""
    with torch.device("meta"):
        net = build_net(**arguments)
    return sum(parameter.numel() for parameter in net.parameters()) + 2048 * 1000 + 1000


def test_there_are_replacements():
    assert len(CONV2) >= 6


@pytest.mark.parametrize(
    ("arguments", "published"),
    [
        # Counted on the authors' networks.
        (dict(depth=50, conv2="pyramid_split"), 22_561_715),
        (dict(depth=101, conv2="pyramid_split"), 38_900_279),
        # Equal to mmseg's network, below; the authors state 27.5M.
        (dict(depth=50, conv2="split_attention", deep_stem=True, avg_down=True), 27_483_240),
    ],
    ids=["EPSANet-50", "EPSANet-101", "ResNeSt-50"],
)
def test_parameter_counts_are_those_published(arguments, published):
    assert count(VariantResNet, **arguments) == published


@pytest.mark.parametrize(
    ("arguments", "millions"),
    [
        # The papers' tables, to the digits they give.
        (dict(depth=50, conv2="selective_kernel"), "27.5"),
        (dict(depth=50, conv2="pyconv"), "24.85"),
        (dict(depth=101, conv2="pyconv"), "42.31"),
        (dict(depth=50, conv2="res2net"), "25.70"),
        (dict(depth=50, conv2=dict(type="res2net", scale=8), base_width=208), "48.40"),
    ],
    ids=["SKNet-50", "PyConvResNet-50", "PyConvResNet-101", "Res2Net-50-26w-4s", "Res2Net-50-26w-8s"],
)
def test_parameter_counts_round_to_those_published(arguments, millions):
    digits = len(millions.partition(".")[2])
    assert f"{count(VariantResNet, **arguments) / 1e6:.{digits}f}" == millions


def test_hs_resnet_is_as_large_as_resnet():
    ours, theirs = count(VariantResNet, depth=50, conv2="hs_resnet"), count(ResNet, depth=50)
    assert theirs == 25_557_032
    assert abs(ours / theirs - 1) < 0.02


@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        cpu_alone(dict(contract_dilation=True, multi_grid=(1, 2, 4))),
        cpu_alone(dict(strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))),
    ],
    ids=str,
)
def test_resnest_equals_mmsegs(changes, device):
    arguments = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)) | changes
    torch.manual_seed(0)
    theirs = draw(ResNeSt(depth=50, base_channels=8, stem_channels=8, **arguments)).double()
    ours = VariantResNet(
        50, "split_attention", base_channels=8, stem_channels=8, deep_stem=True, avg_down=True, **arguments
    ).double()
    ours.eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    ours.to(device), theirs.to(device)
    x = image(dtype=torch.float64, device=device)
    for out, want in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-12)


def test_pooled_resnest_is_the_authors_dilated_network(device):
    """The authors' first blocks of stages 3 and 4 pool, 3x3 with a stride of 1, and dilate half as far."""
    arguments = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
    torch.manual_seed(0)
    theirs = draw(ResNeSt(depth=50, base_channels=8, stem_channels=8, **arguments)).double()
    for stage in (theirs.layer3, theirs.layer4):
        stage[0].avd_layer, stage[0].avg_down_stride = nn.AvgPool2d(3, 1, padding=1), True
    ours = VariantResNet(
        50,
        "split_attention_pooled",
        base_channels=8,
        stem_channels=8,
        deep_stem=True,
        avg_down=True,
        **arguments,
    ).double()
    ours.eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ours.to(device), theirs.to(device)
    x = image(dtype=torch.float64, device=device)
    for out, want in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-12)


def test_the_pooling_makes_no_difference_without_dilation():
    plain, pooled = (
        build(kind, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))
        for kind in ("split_attention", "split_attention_pooled")
    )
    for one, other in zip(plain(image(33, 49)), pooled(image(33, 49)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("style", ["pytorch", "caffe"])
def test_a_plain_kernel_makes_mmsegs_resnet(style, device):
    arguments = dict(
        depth=50,
        base_channels=8,
        stem_channels=8,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        multi_grid=(1, 2, 4),
        style=style,
    )
    torch.manual_seed(0)
    theirs = draw(ResNet(**arguments)).double()
    ours = VariantResNet(conv2=dict(type="pyconv", kernel_sizes=(3,), groups=(1,)), **arguments)
    renamed = {
        name if name == "conv1.weight" else name.replace("conv2.weight", "conv2.levels.0.weight"): tensor
        for name, tensor in theirs.state_dict().items()
    }
    ours.double().eval()
    ours.load_state_dict(renamed, strict=True)
    ours.to(device), theirs.to(device)
    x = image(dtype=torch.float64, device=device)
    for out, want in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-12)


def _authors_pyconv_resnet(state: dict, x: torch.Tensor, strides: tuple, dilations: tuple) -> list:
    """PyConvResNet-50 as its authors compute it: no pooling in the stem, one in a stage's first shortcut."""

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        keys = ("weight", "bias", "running_mean", "running_var")
        return reference.batch_norm(y, *(state[f"{name}.{key}"] for key in keys))

    x = norm("bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3)).relu()
    outs = []
    for stage, (blocks, levels) in enumerate(zip((3, 4, 6, 3), (4, 3, 2, 1), strict=True), start=1):
        for i in range(blocks):
            name, stride = f"layer{stage}.{i}", strides[stage - 1] if i == 0 else 1
            y = norm(f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])).relu()
            seen = []
            for level in range(levels):
                weight = state[f"{name}.conv2.levels.{level}.weight"]
                rate = dilations[stage - 1]
                seen.append(
                    F.conv2d(
                        y,
                        weight,
                        stride=stride,
                        padding=rate * (weight.shape[-1] // 2),
                        dilation=rate,
                        groups=y.shape[1] // weight.shape[1],
                    )
                )
            y = norm(f"{name}.bn2", torch.cat(seen, dim=1)).relu()
            y = norm(f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
            if i == 0:
                x = F.max_pool2d(x, 3, stride, padding=1)  # also where dilation leaves a stride of 1
                x = norm(f"{name}.downsample.2", F.conv2d(x, state[f"{name}.downsample.1.weight"]))
            x = (x + y).relu()
        outs.append(x)
    return outs


@pytest.mark.parametrize(
    ("strides", "dilations"),
    [((2, 2, 2, 2), (1, 1, 1, 1)), (None, (1, 1, 2, 4))],
    ids=["ImageNet", "dilated"],
)
def test_pooled_shortcuts_make_the_authors_pyconv_resnet(strides, dilations, device):
    net = build("pyconv", pool_shortcuts=True, strides=strides, dilations=dilations).double().to(device)
    net.eval()
    x = image(dtype=torch.float64, device=device)
    wanted = _authors_pyconv_resnet(net.state_dict(), x, strides or (2, 2, 1, 1), dilations)
    outs = net(x)
    assert outs[3].shape[2:] == ((3, 4) if strides else (9, 13))
    for out, want in zip(outs, wanted, strict=True):
        torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-12)


@every_conv2
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_stages_have_resnets_shapes_at_an_eighth(kind, size):
    outs = build(kind)(image(*size))
    quarter, eighth = [[-(-side // stride) for side in size] for stride in (4, 8)]
    assert [list(out.shape[1:]) for out in outs] == [
        [32, *quarter],
        [64, *eighth],
        [128, *eighth],
        [256, *eighth],
    ]


@every_conv2
def test_widths_are_those_asked_for(kind):
    net = build(kind, base_width=320)
    assert [getattr(net, f"layer{i}")[1].conv1.out_channels for i in (1, 2, 3, 4)] == [40, 80, 160, 320]
    assert [getattr(net, f"layer{i}")[1].conv3.in_channels for i in (1, 2, 3, 4)] == [40, 80, 160, 320]


def test_res2net_chains_all_blocks_but_a_stages_first():
    net = build("res2net")
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        assert [block.conv2.chained for block in stage] == [False] + [True] * (len(stage) - 1)


def test_pyconv_has_a_level_less_in_each_stage():
    net = build("pyconv")
    stages = (net.layer1, net.layer2, net.layer3, net.layer4)
    kernels = [[level.kernel_size[0] for level in stage[1].conv2.levels] for stage in stages]
    assert kernels == [[3, 5, 7, 9], [3, 5, 7], [3, 5], [3]]


@every_conv2_and_one_on_gpu
def test_a_backward_pass_reaches_every_parameter(kind, device):
    net = build(kind).double().to(device)
    net.train()
    sum(out.square().mean() for out in net(image(dtype=torch.float64, device=device))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith(ZERO_GRADIENT):
            assert parameter.grad.abs().max() > 1e-15, name


@every_conv2
def test_convolutions_of_the_last_stages_are_dilated(kind):
    net, plain = build(kind), build(kind, dilations=(1, 1, 1, 1))
    for stage, factor in ((2, 1), (3, 2), (4, 4)):
        for dilated, same in zip(
            getattr(net, f"layer{stage}").modules(), getattr(plain, f"layer{stage}").modules(), strict=True
        ):
            if isinstance(dilated, nn.Conv2d) and dilated.kernel_size != (1, 1):
                assert dilated.dilation[0] == factor * same.dilation[0]
                assert dilated.padding[0] == dilated.dilation[0] * (dilated.kernel_size[0] // 2)
    plain.load_state_dict(net.state_dict(), strict=True)
    net, plain = net(image()), plain(image())
    torch.testing.assert_close(net[1], plain[1])
    for stage in (2, 3):
        assert not torch.allclose(net[stage], plain[stage], rtol=1e-2)


@every_conv2
def test_multi_grid_and_contracted_dilation_reach_the_convolutions(kind):
    net = build(kind, contract_dilation=True, multi_grid=(1, 2, 4))

    def dilations(layer: nn.Module) -> list[int]:
        return [
            min(m.dilation[0] for m in block.conv2.modules() if getattr(m, "kernel_size", (1, 1)) != (1, 1))
            for block in layer
        ]

    assert dilations(net.layer3) == [1, 2, 2, 2, 2, 2]
    assert dilations(net.layer4) == [1, 2, 4]


@every_conv2_and_one_on_gpu
def test_recomputing_gives_the_same_gradients(kind, device):
    plain, recomputed = build(kind).double().to(device), build(kind, with_cp=True).double().to(device)
    recomputed.load_state_dict(plain.state_dict())
    for net in (plain, recomputed):
        net(image(33, 49, torch.float64, device))[-1].square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


@every_conv2_and_one_on_gpu
def test_a_training_step_repeats_to_the_bit(kind, device):
    steps = []
    with deterministic():
        for _ in range(2):
            net = build(kind).to(device)
            net.train()
            net(image(33, 49, device=device))[-1].square().mean().backward()
            steps.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*steps, strict=True))


@every_conv2
@pytest.mark.parametrize("memory_format", [cpu_alone(torch.contiguous_format), torch.channels_last], ids=str)
def test_on_every_device_outputs_and_gradients_are_those_of_float64_on_the_cpu(kind, memory_format, device):
    wide, narrow = build(kind).double(), build(kind).to(device, memory_format=memory_format)
    x, exact = image(33, 49, device=device), image(33, 49).double()
    outs, wants = narrow(x.contiguous(memory_format=memory_format)), wide(exact)
    for out, want in zip(outs, wants, strict=True):
        assert out.device == device and out.dtype == torch.float32
        assert (out.cpu() - want).abs().max() / want.abs().max() < 1e-4
    for found in (outs, wants):
        sum(out.square().mean() for out in found).backward()
    largest = max(parameter.grad.abs().max() for parameter in wide.parameters())
    for (name, one), other in zip(narrow.named_parameters(), wide.parameters(), strict=True):
        scale = largest if name.endswith(ZERO_GRADIENT) else max(other.grad.abs().max(), 1e-4 * largest)
        assert (one.grad.cpu() - other.grad).abs().max() / scale < 3e-2, name  # rounding moves a ReLU's 0


@every_conv2_and_one_on_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_trains_in_16_bits(kind, dtype, device):
    net = build(kind).to(device)
    wants = build(kind).to(device)(image(33, 49, device=device))
    with torch.autocast(device.type, dtype):
        outs = net(image(33, 49, device=device))
    sum(out.float().square().mean() for out in outs).backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    for out, want in zip(outs, wants, strict=True):
        assert out.dtype == dtype
        assert (out - want).abs().max() / want.abs().max() < (0.1 if dtype == torch.bfloat16 else 0.02)


@every_conv2
def test_copies_and_state_dicts_compute_the_same(kind):
    net, x = build(kind), image(33, 49)
    other = build(kind)
    other.load_state_dict(net.state_dict(), strict=True)
    for out, copied, loaded in zip(net(x), copy.deepcopy(net)(x), other(x), strict=True):
        assert torch.equal(out, copied)
        assert torch.equal(out, loaded)


@every_conv2
def test_every_norm_is_that_of_the_config(kind):
    norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
    for config, norm in (
        (dict(type="SyncBN"), nn.SyncBatchNorm),
        (dict(type="GN", num_groups=1), nn.GroupNorm),
    ):
        with torch.device("meta"):
            net = VariantResNet(50, kind, norm_cfg=config)
        assert all(isinstance(layer, norm) for layer in net.modules() if isinstance(layer, norms))


@every_conv2
def test_norms_can_be_frozen(kind):
    net = build(kind, norm_eval=True, frozen_stages=1)
    net.train()
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert not any(p.requires_grad for p in net.layer1.parameters())
    assert all(p.requires_grad for p in net.layer2.parameters())


@every_conv2
def test_initialisation_leaves_blocks_as_identities_and_scales_at_zero(kind):
    net = VariantResNet(50, kind, base_channels=8, stem_channels=8, base_width=WIDTHS.get(kind))
    net.init_weights()
    for stage in (net.layer1, net.layer4):
        assert not any(block.norm3.weight.any() for block in stage)
    for name, parameter in net.named_parameters():
        if name.endswith("gamma.scale"):
            assert parameter == 0
        elif not name.endswith(("bias", "bn3.weight")):
            assert parameter.any(), name


def test_a_checkpoint_replaces_the_initialisation(tmp_path):
    trained = build("pyramid_split")
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    for how in (
        dict(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "net.pth"))),
        dict(pretrained=str(tmp_path / "net.pth")),
    ):
        net = build("pyramid_split", **how)
        net.init_weights()
        for name, tensor in trained.state_dict().items():
            assert torch.equal(net.state_dict()[name], tensor), name


def test_plugins_get_the_channels_of_their_place():
    plugins = [
        dict(cfg=dict(type="mmseg.SelectiveKernel", postfix=i), position=f"after_conv{i}") for i in (1, 2, 3)
    ]
    net = build("selective_kernel", plugins=plugins)
    block = net.layer2[1]
    names = [block.after_conv1_plugin_names, block.after_conv2_plugin_names, block.after_conv3_plugin_names]
    assert [getattr(block, name).paths[0].conv.in_channels for (name,) in names] == [32, 32, 64]
    assert net(image(33, 49))[-1].isfinite().all()


def test_plugins_start_as_designed():
    plugin = dict(cfg=dict(type="mmseg.GlobalContext"), position="after_conv3")
    net = VariantResNet(50, "pyramid_split", base_channels=8, stem_channels=8, plugins=[plugin])
    net.init_weights()
    block = net.layer3[2]
    context = getattr(block, block.after_conv3_plugin_names[0])
    x = torch.randn(2, 128, 5, 7)
    assert torch.equal(context(x), x)


def test_se_resnet_is_resnet_with_a_plugin():
    plugin = dict(cfg=dict(type="mmseg.SqueezeExcitation"), position="after_conv3")
    # The ImageNet network, as it is commonly reported.
    assert count(ResNet, depth=50, plugins=[plugin]) == 28_088_024
    net = draw(ResNet(depth=50, base_channels=8, stem_channels=8, plugins=[plugin]))
    net.train()
    sum(out.square().mean() for out in net(image())).backward()
    gates = [name for name, _ in net.named_parameters() if "squeeze_excitation" in name]
    assert len(gates) == 4 * 16
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_unknown_arguments_name_what_there_is():
    for conv2 in ("pyramid", dict(kernel_sizes=(3, 5)), dict(type="psa")):
        with pytest.raises(ValueError, match="one of pyramid_split, .*hs_resnet"):
            VariantResNet(50, conv2)
    for depth in (18, 34):
        with pytest.raises(ValueError, match=f"one of 50, 101, 152, 200, 269, got {depth}"):
            VariantResNet(depth, "pyramid_split")
    with pytest.raises(ValueError, match="dcn"):
        VariantResNet(50, "pyramid_split", dcn=dict(type="DCN"), stage_with_dcn=(False,) * 4)
    with pytest.raises(ValueError, match="avg_down and pool_shortcuts"):
        VariantResNet(50, "pyconv", pool_shortcuts=True, avg_down=True)
    with pytest.raises(TypeError, match="kernels"):
        VariantResNet(50, dict(type="pyramid_split", kernels=(3, 5)))


def test_a_network_of_both_trains():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    net = MODELS.build(
        dict(
            type="EncoderDecoder",
            backbone=dict(
                type="VariantResNet", depth=50, conv2="pyramid_split", base_channels=8, stem_channels=8
            ),
            decode_head=dict(
                type="EPSANetHead",
                in_channels=256,
                in_index=3,
                channels=16,
                num_classes=5,
                norm_cfg=dict(type="BN"),
            ),
            test_cfg=dict(mode="whole"),
        )
    )
    net.init_weights()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    labels = (image(64, 96)[:, :1] > 0).long()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    losses = []
    for _ in range(8):
        loss = net.loss(image(64, 96), samples)["decode.loss_ce"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2


@every_conv2
def test_a_replacement_names_an_input_that_it_was_not_made_for(kind):
    module = CONV2[kind].module(80).eval()
    x = torch.randn(2, 80, 5, 7)
    assert module(x).shape == x.shape
    for wrong in (x[:, :79], x[:, :40], torch.cat([x, x], dim=1), x[0], x[..., None], x[..., :0], x.long()):
        with pytest.raises(ValueError, match=rf"was made for 80 channels.*got \({wrong.shape[0]}, "):
            module(wrong)


@every_conv2
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cast", [False, True])
def test_a_replacement_trains_in_16_bits(kind, dtype, cast, device):
    torch.manual_seed(0)
    module = CONV2[kind].module(80).to(device)
    wide = copy.deepcopy(module).eval()
    module = module.to(dtype) if cast else module
    x = torch.randn(2, 80, 5, 7).to(device, dtype).requires_grad_()
    for training in (False, True):
        module.train(training)
        with torch.autocast(device.type, dtype, enabled=not cast):
            out = module(x)
        assert out.dtype == dtype
        out.float().square().mean().backward()
        if not training:
            want = wide(x.detach().float())
            assert (out - want).abs().max() / want.abs().max() < 3e-2
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@every_conv2
def test_a_replacement_repeats_to_the_bit(kind, device):
    torch.manual_seed(0)
    module = CONV2[kind].module(80).to(device)
    x, steps = torch.randn(2, 80, 17, 19).to(device).requires_grad_(), []
    with deterministic():
        for _ in range(2):
            again = copy.deepcopy(module)  # with the same batch statistics
            out = again(x)
            steps.append([out, *torch.autograd.grad(out.square().mean(), [x, *again.parameters()])])
    assert all(torch.equal(*pair) for pair in zip(*steps, strict=True))


@every_conv2
@pytest.mark.parametrize("memory_format", [cpu_alone(torch.contiguous_format), torch.channels_last], ids=str)
def test_a_replacement_that_strides_gives_what_the_cpu_gives(kind, memory_format, device):
    """In float64, where no rounding moves a ReLU's 0."""
    torch.manual_seed(0)
    arguments = dict(chained=False) if kind == "res2net" else {}  # a chain does not stride
    module = CONV2[kind].module(80, stride=2, **arguments).double()
    x = torch.randn(2, 80, 9, 14, dtype=torch.float64)
    results = []
    for where, layout in (("cpu", torch.contiguous_format), (device, memory_format)):
        one = copy.deepcopy(module).to(where, memory_format=layout)
        given = x.to(where).contiguous(memory_format=layout).requires_grad_()
        out = one(given)
        grads = torch.autograd.grad(out.square().mean(), [given, *one.parameters()])
        results.append([out.detach().cpu(), *(grad.cpu() for grad in grads)])
    for want, found in zip(*results, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-11)
