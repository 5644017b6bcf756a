"""mmengine's complexity analysis counts what PyTorch's FlopCounterMode counts, and what plain forms take."""

import importlib
import sys

import pytest
import torch
from mmengine.analysis import ActivationAnalyzer, FlopAnalyzer, get_model_complexity_info
from mmseg.registry import MODELS
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

import danseg.attention
from danseg import mmseg_import

# What mmengine counts besides, and PyTorch does not.
NOT_PRODUCTS = {"batch_norm", "group_norm", "layer_norm", "upsample_bilinear2d", "adaptive_avg_pool2d"}
SIZES = {1: (63,), 2: (7, 9), 3: (2, 7, 9)}


def _analysed(module: nn.Module, *x: torch.Tensor) -> dict[str, float]:
    analyzer = FlopAnalyzer(module.eval(), x)
    counts = analyzer.by_operator()
    assert not [name for name in analyzer.unsupported_ops() if "danseg" in name or "dot_product" in name]
    return {name: count for name, count in counts.items() if name not in NOT_PRODUCTS}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=str
)  # on a GPU they take other kernels
@pytest.mark.parametrize("name", sorted(danseg.attention.__all__))
def test_every_module_counts_as_with_pytorch(name, dtype):
    kind = getattr(danseg.attention, name)
    module = kind(16).eval().to(dtype)
    x = torch.randn(1, 16, *SIZES[getattr(kind, "dims", 2)]).to(dtype)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    # A multiply-add counts as two there and as one here.
    assert 2 * sum(_analysed(module, x).values()) == counter.get_total_flops() > 0


class Plain(nn.Module):
    """DANet's position attention with the map in memory, from the layers of danseg's."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x):
        query, key, value = (
            project(x).flatten(2)
            for project in (self.layers.query_project, self.layers.key_project, self.layers.value_project)
        )
        weight = torch.bmm(query.transpose(1, 2), key).softmax(dim=-1)
        return self.layers.gamma(x, torch.bmm(value, weight.transpose(1, 2)).view_as(x))


def test_position_attention_counts_as_its_plain_form():
    module, x = danseg.attention.PositionAttention(16), torch.randn(2, 16, 7, 9)
    plain = _analysed(Plain(module), x)
    ours = _analysed(module, x)
    assert plain["bmm"] == 2 * 63 * 63 * (2 + 16)
    assert ours == {"conv": plain["conv"], "attention_forward": plain["bmm"]}


def test_a_whole_head_is_counted():
    head = dict(in_channels=8, in_index=0, channels=16, num_classes=5, norm_cfg=dict(type="BN"))
    attention = dict(type="PositionAttention")
    module = nn.Sequential(
        nn.Conv2d(3, 8, 1), _Listed(MODELS.build(dict(type="AttentionHead", attention=attention, **head)))
    )
    counted = get_model_complexity_info(module, (3, 7, 9), show_table=False, show_arch=False)
    with_map = 63 * 63 * (2 + 16)
    alone = get_model_complexity_info(module[1].head.attention, (16, 7, 9), show_table=False, show_arch=False)
    assert alone["flops"] == 63 * 16 * (2 + 2 + 16) + with_map
    assert counted["flops"] > alone["flops"]
    assert (
        ActivationAnalyzer(module.eval(), torch.randn(1, 3, 7, 9)).by_operator()["attention_forward"]
        == 63 * 16
    )


class _Listed(nn.Module):
    """A head takes a list of maps."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head([x])


@pytest.mark.parametrize("first", ["danseg", "mmengine"])
def test_the_order_of_imports_does_not_matter(first, monkeypatch):
    for name in ("mmengine.analysis", "mmengine.analysis.complexity_analysis", mmseg_import.FLOP_HANDLES):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    imports = [mmseg_import.connect, lambda: importlib.import_module("mmengine.analysis")]
    for step in imports if first == "danseg" else reversed(imports):
        step()
    analysis = sys.modules["mmengine.analysis.complexity_analysis"]
    assert analysis.FlopAnalyzer is not FlopAnalyzer
    assert "danseg::attention_forward" in analysis._DEFAULT_SUPPORTED_FLOP_OPS
    assert not mmseg_import._Followed.awaited


class OnCuda(nn.Module):
    def forward(self, query, key, value):
        return scaled_dot_product_attention(query, key, value, scale=1.0)


def test_the_kernels_of_cuda_are_counted():
    query, key, value = torch.randn(2, 1, 5, 4), torch.randn(2, 1, 7, 4), torch.randn(2, 1, 7, 3)
    assert _analysed(OnCuda(), query, key, value) == {"scaled_dot_product_attention": 2 * 5 * 7 * (4 + 3)}
