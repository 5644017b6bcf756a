"""Let mmengine's complexity analysis count danseg's operators. Importing this module does it.

``mmengine.analysis`` (``FlopAnalyzer`` and ``get_model_complexity_info``, and with them mmseg's
``get_flops.py``) looks operators up in two tables of its own, for operations and for activations. It counts
an operator that is not there as nothing, with a warning. The formulas are those that PyTorch's
``FlopCounterMode`` uses; they stand beside the operators in :mod:`danseg.ops`.
"""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.analysis import complexity_analysis, jit_analysis
from mmengine.analysis.jit_handles import generic_activation_jit
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

import danseg.ops  # noqa: F401  (fills flop_registry)
from danseg.ops.exporting import operators_kept


def _argument(value: Any) -> Any:
    """What a value of a traced graph stands for; of a tensor, one with its size alone."""
    if value.isCompleteTensor():
        return torch.empty(value.type().sizes(), device="meta")
    if value.node().kind() in ("prim::ListConstruct", "prim::TupleConstruct"):
        return [_argument(entry) for entry in value.node().inputs()]
    return value.toIValue()


def _handle(formula: Callable[..., int]) -> Callable[[list, list], int]:
    # A multiply-add counts as two operations in PyTorch, and as one in mmengine.
    return lambda inputs, outputs: formula(*map(_argument, inputs)) // 2


def _sdpa(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_args: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


_FORMULAS = {
    f"danseg::{operator.__name__}": formula
    for operator, formula in flop_registry.items()
    if getattr(operator, "_qualified_op_name", "").startswith("danseg::")
}
# What danseg.ops.attention calls on CUDA.
_FORMULAS["aten::scaled_dot_product_attention"] = _sdpa

for _name, _formula in _FORMULAS.items():
    complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS.setdefault(_name, _handle(_formula))
    complexity_analysis._DEFAULT_SUPPORTED_ACT_OPS.setdefault(_name, generic_activation_jit())

# The analysis traces a network as an exporter does, but has to find the operators themselves.
jit_analysis._get_trace_graph = operators_kept()(jit_analysis._get_trace_graph)
