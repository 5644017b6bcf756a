"""The papers' equations written plainly: slow, quadratic in memory, and the tests' truth.

Nothing here is used at run time. Each function is read off its paper with one einsum per
sum sign, so that a reader can hold it beside the page.
"""

import torch
from torch import Tensor


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    """``out_i = Σ_j softmax_j(scale · q_i·k_j) v_j``; shapes (B, N, C), (B, M, C), (B, M, D)."""
    energy = scale * torch.einsum("bic,bjc->bij", query, key)
    weight = energy.exp() / energy.exp().sum(dim=-1, keepdim=True)
    return torch.einsum("bij,bjd->bid", weight, value)


def position_attention_map(
    x: Tensor, w_query: Tensor, b_query: Tensor, w_key: Tensor, b_key: Tensor
) -> Tensor:
    """DANet (arXiv 1809.02983) equation 1: ``s_ji = exp(B_i·C_j) / Σ_i exp(B_i·C_j)``, as (B, N, N) [j, i].

    ``x`` is (B, C, N); the weights are the (C', C) matrices of the 1x1 convolutions. The
    attending position j comes from the query convolution, as in the authors' code.
    """
    query = torch.einsum("qc,bcn->bqn", w_query, x) + b_query[:, None]
    key = torch.einsum("qc,bcn->bqn", w_key, x) + b_key[:, None]
    energy = torch.einsum("bqj,bqi->bji", query, key)
    return energy.exp() / energy.exp().sum(dim=2, keepdim=True)


def position_attention(
    x: Tensor,
    w_query: Tensor,
    b_query: Tensor,
    w_key: Tensor,
    b_key: Tensor,
    w_value: Tensor,
    b_value: Tensor,
    alpha: Tensor,
) -> Tensor:
    """DANet equation 2: ``E_j = α Σ_i s_ji D_i + A_j`` on ``x`` (B, C, N)."""
    weight = position_attention_map(x, w_query, b_query, w_key, b_key)
    value = torch.einsum("dc,bcn->bdn", w_value, x) + b_value[:, None]
    return alpha * torch.einsum("bji,bdi->bdj", weight, value) + x


def channel_attention_map(x: Tensor) -> Tensor:
    """DANet equation 3 as the authors' code has it: weights ``softmax_i(max_i E_ji - E_ji)``, E = A Aᵀ.

    The maximum cancels in the softmax, so the weights are ``exp(-E_ji) / Σ_i exp(-E_ji)``.
    Shifting each row by its minimum, which cancels likewise, keeps the exponentials finite.
    """
    energy = torch.einsum("bjn,bin->bji", x, x)
    weight = (energy.min(dim=2, keepdim=True).values - energy).exp()
    return weight / weight.sum(dim=2, keepdim=True)


def channel_attention(x: Tensor, beta: Tensor) -> Tensor:
    """DANet equation 4: ``E_j = β Σ_i x_ji A_i + A_j`` on ``x`` (B, C, N)."""
    return beta * torch.einsum("bji,bin->bjn", channel_attention_map(x), x) + x
