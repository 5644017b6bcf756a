"""The papers' equations in plain code: slow, quadratic in memory, and the reference for the tests.

Nothing here is used at run time. Each function follows its paper with one einsum per sum
sign, so that a reader can compare the two line by line.
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

    ``x`` is (B, C, N); the weights are the (C', C) matrices of the 1x1 convolutions. The query
    convolution makes the attending position j, as in the authors' code.
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
    Shifting each row by its minimum, which cancels too, keeps the exponentials finite.
    """
    energy = torch.einsum("bjn,bin->bji", x, x)
    weight = (energy.min(dim=2, keepdim=True).values - energy).exp()
    return weight / weight.sum(dim=2, keepdim=True)


def channel_attention(x: Tensor, beta: Tensor) -> Tensor:
    """DANet equation 4: ``E_j = β Σ_i x_ji A_i + A_j`` on ``x`` (B, C, N)."""
    return beta * torch.einsum("bji,bin->bjn", channel_attention_map(x), x) + x


def convolution(
    x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1, groups: int = 1, bias: Tensor | None = None
) -> Tensor:
    """``y_o(p) = Σ_c Σ_u w_oc(u) x_c(stride · p + dilation · u) + b_o``, u counted from the kernel's centre.

    ``x`` is (B, C, H, W), zero outside; ``weight`` is (O, C / groups, K, K) with odd K. The output channels
    are divided among the groups in order.
    """
    batch, channels, height, width = x.shape
    size = weight.shape[-1]
    reach = dilation * (size // 2)
    padded = x.new_zeros(batch, channels, height + 2 * reach, width + 2 * reach)
    padded[:, :, reach : reach + height, reach : reach + width] = x
    out = []
    for part, w in zip(padded.chunk(groups, dim=1), weight.chunk(groups, dim=0), strict=True):
        total = x.new_zeros(())
        for row in range(size):
            for column in range(size):
                top, left = dilation * row, dilation * column
                seen = part[:, :, top : top + height : stride, left : left + width : stride]
                total = total + torch.einsum("oc,bchw->bohw", w[:, :, row, column], seen)
        out.append(total)
    joined = torch.cat(out, dim=1)
    return joined if bias is None else joined + bias[:, None, None]


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """``w_c (x_c - mean_c) / √(variance_c + 1e-5) + b_c`` on (B, C, ...), with given statistics."""
    shape = (-1, *[1] * (x.dim() - 2))
    scale = weight / (variance + 1e-5).sqrt()
    return (x - mean.view(shape)) * scale.view(shape) + bias.view(shape)


def selective_kernel_branches(
    x: Tensor,
    branches: list[tuple[Tensor, tuple[Tensor, ...]]],
    groups: int,
    w_reduce: Tensor,
    norm_reduce: tuple[Tensor, ...],
    w_select: Tensor,
) -> tuple[Tensor, Tensor]:
    """SKNet (arXiv 1903.06586) equations 1 to 5 on ``x`` (B, C, H, W): weights (B, M, C), U (B, M, C, H, W).

    ``branches`` holds each kernel (C, C / groups, 3, 3) with its batch norm; branch i, counted from 1, has
    dilation i. ``w_reduce`` is (d, C). ``w_select`` is (M, C, d), the paper's A, B, ...
    """
    u = []
    for i, (weight, norm) in enumerate(branches, start=1):
        u.append(batch_norm(convolution(x, weight, dilation=i, groups=groups), *norm).clamp(min=0))
    s = torch.einsum("bchw->bc", sum(u)) / (x.shape[2] * x.shape[3])
    z = batch_norm(torch.einsum("dc,bc->bd", w_reduce, s), *norm_reduce).clamp(min=0)
    energy = torch.einsum("mcd,bd->bmc", w_select, z)
    return energy.exp() / energy.exp().sum(dim=1, keepdim=True), torch.stack(u, dim=1)


def selective_kernel(x: Tensor, *weights) -> Tensor:
    """SKNet equation 6, ``V_c = Σ_m a_m,c U_m,c``, of :func:`selective_kernel_branches`."""
    return torch.einsum("bmc,bmchw->bchw", *selective_kernel_branches(x, *weights))


def split_attention_branches(
    x: Tensor,
    w_conv: Tensor,
    norm_conv: tuple[Tensor, ...],
    w_1: Tensor,
    b_1: Tensor,
    norm_1: tuple[Tensor, ...],
    w_2: Tensor,
    b_2: Tensor,
    radix: int,
    groups: int,
) -> tuple[Tensor, Tensor]:
    """ResNeSt (arXiv 2004.08955) on ``x`` (B, C, H, W): equation 3's weights (B, R, C), U (B, R, C, H, W).

    Split i of group k is block i · groups + k of the convolution's output channels. ``w_1`` (d, C / groups)
    and ``w_2`` (C · radix, d / groups) stack the matrices of the groups; within a group, ``w_2`` stacks those
    of the splits.
    """
    u = batch_norm(convolution(x, w_conv, groups=radix * groups), *norm_conv).clamp(min=0)
    blocks = u.chunk(radix * groups, dim=1)
    of_groups = []  # one cardinal group after another
    for k in range(groups):
        splits = [blocks[i * groups + k] for i in range(radix)]
        s = torch.einsum("bchw->bc", sum(splits)) / (x.shape[2] * x.shape[3])
        z = torch.einsum("dc,bc->bd", w_1.chunk(groups)[k], s) + b_1.chunk(groups)[k]
        z = batch_norm(z, *[t.chunk(groups)[k] for t in norm_1]).clamp(min=0)
        energy = [
            torch.einsum("cd,bd->bc", w, z) + b
            for w, b in zip(w_2.chunk(groups)[k].chunk(radix), b_2.chunk(groups)[k].chunk(radix), strict=True)
        ]
        if radix > 1:
            weights = [e.exp() / sum(other.exp() for other in energy) for e in energy]
        else:
            weights = [1 / (1 + (-energy[0]).exp())]
        of_groups.append((torch.stack(weights, dim=1), torch.stack(splits, dim=1)))
    weights_of_groups, splits_of_groups = zip(*of_groups, strict=True)
    return torch.cat(weights_of_groups, dim=2), torch.cat(splits_of_groups, dim=2)


def split_attention(x: Tensor, *weights) -> Tensor:
    """ResNeSt equation 2, ``V_c = Σ_i a_i,c U_i,c``, of :func:`split_attention_branches`."""
    return torch.einsum("brc,brchw->bchw", *split_attention_branches(x, *weights))


def _pyramid_split(features: list[Tensor], scores: list[Tensor]) -> Tensor:
    total = sum(score.exp() for score in scores)
    out = [torch.einsum("bc,bchw->bchw", s.exp() / total, f) for s, f in zip(scores, features, strict=True)]
    return torch.cat(list(reversed(out)), dim=1)


def pyramid_split_attention(
    x: Tensor, kernels: list[Tensor], groups: list[int], w_1: Tensor, b_1: Tensor, w_2: Tensor, b_2: Tensor
) -> Tensor:
    """EPSANet (arXiv 2105.14447) section 3 on ``x`` (B, C, H, W), branches concatenated from last to first.

    ``w_1`` (d, C / S) and ``w_2`` (C / S, d) are the matrices of the squeeze-and-excitation.
    """
    features = [convolution(x, kernel, groups=group) for kernel, group in zip(kernels, groups, strict=True)]
    scores = []
    for feature in features:
        pooled = torch.einsum("bchw->bc", feature) / (x.shape[2] * x.shape[3])
        z = (torch.einsum("dc,bc->bd", w_1, pooled) + b_1).clamp(min=0)
        scores.append(1 / (1 + (-torch.einsum("cd,bd->bc", w_2, z) - b_2).exp()))
    return _pyramid_split(features, scores)


def pyramid_split_dual_attention(
    x: Tensor,
    kernels: list[Tensor],
    groups: list[int],
    position_weights: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    alpha: Tensor,
    beta: Tensor,
) -> Tensor:
    """EPSANet's pyramid (arXiv 2105.14447) with scores from DANet's two modules (arXiv 1809.02983).

    ``position_weights`` and ``alpha`` are arguments of :func:`position_attention`, ``beta`` is one of
    :func:`channel_attention`.
    """
    features = [convolution(x, kernel, groups=group) for kernel, group in zip(kernels, groups, strict=True)]
    scores = []
    for feature in features:
        flat = feature.flatten(2)
        dual = position_attention(flat, *position_weights, alpha) + channel_attention(flat, beta)
        scores.append(1 / (1 + (-torch.einsum("bcn->bc", dual) / flat.shape[2]).exp()))
    return _pyramid_split(features, scores)


def branch_shares(weighed: Tensor) -> Tensor:
    """``‖v_m(p)‖ / Σ_k ‖v_k(p)‖`` at each position p, for what M branches give, (B, M, C, H, W)."""
    size = torch.einsum("bmchw,bmchw->bmhw", weighed, weighed).sqrt()
    return size / torch.einsum("bmhw->bhw", size)[:, None]


def concatenation(a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    """``out_i = 1/M Σ_j relu(a_i + b_j) v_j``; shapes (B, N), (B, M), (B, M, D)."""
    weight = (a[:, :, None] + b[:, None, :]).clamp(min=0)
    return torch.einsum("bij,bjd->bid", weight, value) / b.shape[1]


def non_local_map(theta: Tensor, phi: Tensor, mode: str, scale: float, w: Tensor | None = None) -> Tensor:
    """Non-local Neural Networks (arXiv 1711.07971): the weights f(x_i, x_j) / C(x_i), as (B, N, M) [i, j].

    ``theta`` is (B, C', N) and ``phi`` (B, C', M); for ``gaussian``, both are x itself. The modes are
    equations 2 (Gaussian), 3 (embedded Gaussian), 4 (dot product) and 5 (concatenation, with ``w`` (2C',)).
    ``scale`` is a factor on the energies of the embedded Gaussian.
    """
    if mode == "concatenation":
        pairs = torch.cat(
            [
                theta[:, :, :, None].expand(-1, -1, -1, phi.shape[2]),
                phi[:, :, None, :].expand(-1, -1, theta.shape[2], -1),
            ],
            dim=1,
        )  # [θ_i, φ_j] as (B, 2C', N, M)
        return torch.einsum("c,bcij->bij", w, pairs).clamp(min=0) / phi.shape[2]
    energy = torch.einsum("bci,bcj->bij", theta, phi)
    if mode == "dot_product":
        return energy / phi.shape[2]
    weight = (scale * energy).exp()
    return weight / weight.sum(dim=2, keepdim=True)


def non_local(x: Tensor, weight: Tensor, g: Tensor, w_out: Tensor, b_out: Tensor) -> Tensor:
    """Equations 1 and 6: ``z_i = W_z Σ_j f_ij g_j / C_i + x_i``; ``x`` (B, C, N), ``g`` (B, C', M)."""
    y = torch.einsum("bij,bcj->bci", weight, g)
    return torch.einsum("dc,bci->bdi", w_out, y) + b_out[:, None] + x


def disentangled_non_local(
    x: Tensor,
    query: Tensor,
    key: Tensor,
    g: Tensor,
    mask: Tensor,
    scale: float,
    w_out: Tensor,
    b_out: Tensor,
) -> Tensor:
    """DNL (arXiv 2006.06668) section 3: whitened pairwise softmax plus unary softmax, on shared values.

    ``x`` is (B, C, N); ``query``, ``key`` and ``g`` are (B, C', N); ``mask`` is (B, N). ``scale`` combines
    1/√C' and the temperature. The result is projected and added to ``x``.
    """
    mean_query, mean_key = query.mean(dim=2, keepdim=True), key.mean(dim=2, keepdim=True)
    pairwise = (scale * torch.einsum("bci,bcj->bij", query - mean_query, key - mean_key)).exp()
    pairwise = pairwise / pairwise.sum(dim=2, keepdim=True)
    unary = mask.exp() / mask.exp().sum(dim=1, keepdim=True)
    y = torch.einsum("bij,bcj->bci", pairwise, g) + torch.einsum("bj,bcj->bc", unary, g)[:, :, None]
    return torch.einsum("dc,bci->bdi", w_out, y) + b_out[:, None] + x


def global_context_map(x: Tensor, w_key: Tensor, b_key: Tensor) -> Tensor:
    """GCNet (arXiv 1904.11492), the weights ``exp(W_k x_j) / Σ_m exp(W_k x_m)`` of positions j, as (B, N).

    ``x`` is (B, C, N), ``w_key`` (C,), ``b_key`` a number.
    """
    energy = torch.einsum("c,bcj->bj", w_key, x) + b_key
    return energy.exp() / energy.exp().sum(dim=1, keepdim=True)


def global_context_transform(
    z: Tensor,
    w_1: Tensor,
    b_1: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    w_2: Tensor,
    b_2: Tensor,
    *,
    eps: float = 1e-5,
) -> Tensor:
    """GCNet's bottleneck ``W_v2 ReLU(LN(W_v1 z))`` of contexts ``z`` (B, C); LN runs over the planes."""
    y = torch.einsum("pc,bc->bp", w_1, z) + b_1
    centred = y - y.mean(dim=1, keepdim=True)
    y = norm_weight * centred / (centred.square().mean(dim=1, keepdim=True) + eps).sqrt() + norm_bias
    return torch.einsum("cp,bp->bc", w_2, y.clamp(min=0)) + b_2


def global_context(
    x: Tensor, w_key: Tensor, b_key: Tensor, add: list[Tensor] | None, mul: list[Tensor] | None = None
) -> Tensor:
    """GCNet's block ``z_i = x_i + W_v2 ReLU(LN(W_v1 Σ_j α_j x_j))`` on ``x`` (B, C, N).

    Both ``add`` and ``mul`` are weights of :func:`global_context_transform`: ``add`` for fusion by addition,
    the paper's block, and ``mul`` for its alternative, fusion by scaling with a sigmoid.
    """
    context = torch.einsum("bj,bcj->bc", global_context_map(x, w_key, b_key), x)
    out = x
    if mul is not None:
        out = out / (1 + (-global_context_transform(context, *mul)).exp()).unsqueeze(2)
    if add is not None:
        out = out + global_context_transform(context, *add).unsqueeze(2)
    return out


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def _two_layers(z: Tensor, w_1: Tensor, b_1: Tensor, w_2: Tensor, b_2: Tensor) -> Tensor:
    """``W_2 relu(W_1 z + b_1) + b_2`` of vectors ``z`` (B, C)."""
    hidden = (torch.einsum("hc,bc->bh", w_1, z) + b_1).clamp(min=0)
    return torch.einsum("ch,bh->bc", w_2, hidden) + b_2


def squeeze_excitation(x: Tensor, w_1: Tensor, b_1: Tensor, w_2: Tensor, b_2: Tensor) -> Tensor:
    """SENet (arXiv 1709.01507): z by equation 2, ``s = σ(W_2 δ(W_1 z))`` by 3, scaling by 4; (B, C, N)."""
    z = torch.einsum("bcn->bc", x) / x.shape[2]
    return torch.einsum("bc,bcn->bcn", _sigmoid(_two_layers(z, w_1, b_1, w_2, b_2)), x)


def _pooled_gate(x: Tensor, weight: Tensor, norm: list[Tensor]) -> Tensor:
    """``σ(BN(f([max; mean])))`` with pooling over the channels of (B, C, H, W), as (B, H, W)."""
    pooled = torch.stack([x.max(dim=1).values, x.sum(dim=1) / x.shape[1]], dim=1)
    return _sigmoid(batch_norm(convolution(pooled, weight), *norm))[:, 0]


def cbam_channel(x: Tensor, w_1: Tensor, b_1: Tensor, w_2: Tensor, b_2: Tensor) -> Tensor:
    """CBAM (arXiv 1807.06521): ``M_c = σ(MLP(AvgPool(F)) + MLP(MaxPool(F)))``, equation 2, times F."""
    batch, channels, height, width = x.shape
    mean = torch.einsum("bchw->bc", x) / (height * width)
    highest = x.reshape(batch, channels, -1).max(dim=2).values
    gate = _sigmoid(_two_layers(mean, w_1, b_1, w_2, b_2) + _two_layers(highest, w_1, b_1, w_2, b_2))
    return torch.einsum("bc,bchw->bchw", gate, x)


def cbam_map(x: Tensor, mlp: list[Tensor], weight: Tensor, norm: list[Tensor]) -> Tensor:
    """CBAM equation 3, with the authors' batch normalisation, on the channel-gated map; (B, H, W)."""
    return _pooled_gate(cbam_channel(x, *mlp), weight, norm)


def cbam(x: Tensor, mlp: list[Tensor], weight: Tensor, norm: list[Tensor]) -> Tensor:
    """CBAM equation 1: ``F' = M_c(F) F``, ``F'' = M_s(F') F'`` on (B, C, H, W).

    ``mlp`` is W_1, b_1, W_2, b_2; ``weight`` (1, 2, K, K) takes the maximum, then the mean; ``norm`` is
    weight, bias, mean, variance.
    """
    return torch.einsum("bhw,bchw->bchw", cbam_map(x, mlp, weight, norm), cbam_channel(x, *mlp))


def triplet_attention(x: Tensor, gates: list[tuple[Tensor, list[Tensor]]]) -> Tensor:
    """Triplet attention (arXiv 2010.03045): the mean of three maps, each gated over two of C, H, W.

    ``x`` is (B, C, H, W). ``gates`` holds a kernel (1, 2, K, K) and a normalisation's weight, bias, mean and
    variance, for pooling over H, then over W, then over C. The gates cover (C, W), (H, C) and (H, W).
    """
    over_h, over_w, over_c = gates
    c_w = _pooled_gate(torch.einsum("bchw->bhcw", x), *over_h)
    h_c = _pooled_gate(torch.einsum("bchw->bwhc", x), *over_w)
    h_w = _pooled_gate(x, *over_c)
    return (
        torch.einsum("bcw,bchw->bchw", c_w, x)
        + torch.einsum("bhc,bchw->bchw", h_c, x)
        + torch.einsum("bhw,bchw->bchw", h_w, x)
    ) / 3


def bam_map(x: Tensor, layers: list[tuple[Tensor, list[Tensor]]], dilation: int) -> Tensor:
    """BAM (arXiv 1807.06514) equation 4: ``M_s = BN(f_3(f_2(f_1(f_0(F)))))`` of (B, C, H, W): (B, 1, H, W).

    ``layers`` holds each convolution's kernel and its normalisation's weight, bias, mean, variance.
    There is a ReLU between two layers, and the two layers in the middle are dilated.
    """
    for number, (weight, norm) in enumerate(layers):
        if number > 0:
            x = x.clamp(min=0)
        x = batch_norm(convolution(x, weight, dilation=dilation if number in (1, 2) else 1), *norm)
    return x


def bam(
    x: Tensor,
    channel: list[Tensor],
    channel_norm: list[Tensor],
    spatial: list[tuple[Tensor, list[Tensor]]],
    dilation: int,
) -> Tensor:
    """BAM equations 1 to 3: ``F + F σ(M_c(F) + M_s(F))``, ``M_c = BN(W_1 relu(W_0 AvgPool(F) + b_0))``.

    ``channel`` is W_0, b_0, W_1; the normalisation's bias takes the place of b_1.
    """
    w_0, b_0, w_1 = channel
    mean = torch.einsum("bchw->bc", x) / (x.shape[2] * x.shape[3])
    m_c = batch_norm(_two_layers(mean, w_0, b_0, w_1, torch.zeros_like(w_1[:, 0])), *channel_norm)
    m_s = bam_map(x, spatial, dilation)
    return x + torch.einsum("bchw,bchw->bchw", x, _sigmoid(m_c[:, :, None, None] + m_s))


def efficient_channel_attention(x: Tensor, weight: Tensor) -> Tensor:
    """ECA-Net (arXiv 1910.03151): ``σ(Σ_u w_u z_{c+u})`` scales channel c of ``x`` (B, C, N); w is (K,)."""
    z = torch.einsum("bcn->bc", x) / x.shape[2]
    channels, reach = x.shape[1], len(weight) // 2
    out = []
    for c in range(channels):
        inside = [u for u in range(-reach, reach + 1) if 0 <= c + u < channels]
        energy = torch.stack([weight[u + reach] * z[:, c + u] for u in inside]).sum(dim=0)
        out.append(_sigmoid(energy)[:, None] * x[:, c])
    return torch.stack(out, dim=1)


def global_second_order_pooling(
    x: Tensor,
    w_reduce: Tensor,
    reduce_norm: list[Tensor],
    row_norm: list[Tensor],
    w_row: Tensor,
    b_row: Tensor,
    w_expand: Tensor,
    b_expand: Tensor,
) -> Tensor:
    """GSoP-Net (arXiv 1811.12006), the block along channels, on ``x`` (B, C, N).

    Shapes: ``w_reduce`` (R, C), ``w_row`` (R, 4, R) and ``b_row`` (R, 4), ``w_expand`` (C, R, 4); a
    normalisation is weight, bias, mean, variance.
    """
    y = batch_norm(torch.einsum("rc,bcn->brn", w_reduce, x), *reduce_norm).clamp(min=0)
    mean = torch.einsum("brn->br", y) / y.shape[2]
    second = torch.einsum("brn,bsn->brs", y, y) / y.shape[2]
    covariance = second - torch.einsum("br,bs->brs", mean, mean)  # E[y yᵀ] - E[y] E[y]ᵀ
    rows = torch.einsum("rks,brs->brk", w_row, batch_norm(covariance, *row_norm)) + b_row
    gate = _sigmoid(torch.einsum("crk,brk->bc", w_expand, rows) + b_expand)
    return torch.einsum("bc,bcn->bcn", gate, x)


def criss_cross_map(query: Tensor, key: Tensor) -> Tensor:
    """CCNet (arXiv 1811.11721) equation 1: softmax of ``d_i,u = Q_u·Ω_i,u`` over u's row and column.

    Query and key are (B, C, H, W); the map is (B, H·W, H·W) [u, i], zero off the cross. Position u
    lies both in its row and in its column, but counts once.
    """
    batch, _, height, width = query.shape
    rows = []
    for h in range(height):
        for w in range(width):
            cross = [(i, w) for i in range(height)] + [(h, j) for j in range(width) if j != w]
            energy = torch.stack(
                [torch.einsum("bc,bc->b", query[:, :, h, w], key[:, :, i, j]) for i, j in cross], dim=1
            )
            weight = energy.exp() / energy.exp().sum(dim=1, keepdim=True)
            row = weight.new_zeros(batch, height * width)
            row[:, [i * width + j for i, j in cross]] = weight
            rows.append(row)
    return torch.stack(rows, dim=1)


def criss_cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """CCNet equation 2 without its residual: ``Σ_i A_i,u Φ_i,u``; value and result are (B, D, H, W)."""
    out = torch.einsum("bui,bdi->bdu", criss_cross_map(query, key), value.flatten(2))
    return out.view_as(value)


def multi_head_self_attention(
    x: Tensor,
    query: tuple[Tensor, Tensor],
    key: tuple[Tensor, Tensor],
    value: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor],
    heads: int,
) -> Tensor:
    """Attention Is All You Need (arXiv 1706.03762) section 3.2.2, added to ``x`` (B, C, N).

    ``head_h = softmax(Q_h K_hᵀ / √d) V_h`` and ``MultiHead = [head_1, ...] W^O``; each projection is a
    (C, C) matrix and a bias (C,).
    """
    q, k, v = (torch.einsum("dc,bcn->bdn", w, x) + b[:, None] for w, b in (query, key, value))
    depth = x.shape[1] // heads
    parts = []
    for h in range(heads):
        rows = slice(h * depth, (h + 1) * depth)
        energy = torch.einsum("bci,bcj->bij", q[:, rows], k[:, rows]) / depth**0.5
        weight = energy.exp() / energy.exp().sum(dim=2, keepdim=True)
        parts.append(torch.einsum("bij,bcj->bci", weight, v[:, rows]))
    weight, bias = out
    return torch.einsum("dc,bcn->bdn", weight, torch.cat(parts, dim=1)) + bias[:, None] + x


def compact_generalized_non_local_sums(
    theta: Tensor, phi: Tensor, g: Tensor, groups: int, kernel: str, order: int = 3, gamma: float = 1e-4
) -> Tensor:
    """CGNL (arXiv 1810.13125): ``y_a = Σ_b k(θ_a, φ_b) g_b``; all are (B, C', N).

    a and b run over the positions and the channels of a group. ``dot`` is the product. ``rbf`` is the Taylor
    series, up to ``order``, of the Gaussian radial basis function. ``gaussian`` is that series where the
    squares in front of it are 1.
    """
    out = torch.zeros_like(g)
    depth = g.shape[1] // groups
    for h in range(groups):
        rows = slice(h * depth, (h + 1) * depth)
        a, b, values = (t[:, rows].flatten(1) for t in (theta, phi, g))
        product = a[:, :, None] * b[:, None, :]  # (B, n, n)
        series, factorial = torch.zeros_like(product), 1
        for p in range(order + 1):
            factorial = factorial * p if p else 1
            series = series + (2 * gamma) ** p / factorial * product**p
        squares = a[:, :, None] ** 2 + b[:, None, :] ** 2
        weight = {
            "dot": product,
            "gaussian": torch.exp(-gamma * torch.full_like(squares, 2)) * series,
            "rbf": torch.exp(-gamma * squares) * series,
        }[kernel]
        out[:, rows] = torch.einsum("bmn,bn->bm", weight, values).view_as(g[:, rows])
    return out


def pointwise_spatial_energies(mask: Tensor, kind: str) -> Tensor:
    """PSANet (ECCV 2018): energies (B, N, N) [query, source] from all positions' masks (B, mh, mw, H, W).

    ``collect``: query i reads its own mask at j - i; ``distribute``: it reads source j's mask at i - j. A
    mask is centred on its position, with (size - 1) // 2 cells before it. Outside the mask, energies are 0.
    """
    batch, mask_height, mask_width, height, width = mask.shape
    energies = mask.new_zeros(batch, height, width, height, width)
    for y in range(height):
        for x in range(width):
            for v in range(height):
                for u in range(width):
                    owner, other = ((y, x), (v, u)) if kind == "collect" else ((v, u), (y, x))
                    row = other[0] - owner[0] + (mask_height - 1) // 2
                    column = other[1] - owner[1] + (mask_width - 1) // 2
                    if 0 <= row < mask_height and 0 <= column < mask_width:
                        energies[:, y, x, v, u] = mask[:, row, column, owner[0], owner[1]]
    return energies.reshape(batch, height * width, height * width)


def double_attention(
    x: Tensor,
    feature: tuple[Tensor, Tensor],
    gather: tuple[Tensor, Tensor],
    distribute: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor],
) -> Tensor:
    """A²-Nets (arXiv 1810.11579): ``Z = (A softmax_N(B)ᵀ) softmax_n(V)``, projected, plus ``x`` (B, C, N)."""
    a, b, v = (torch.einsum("dc,bcn->bdn", w, x) + bias[:, None] for w, bias in (feature, gather, distribute))
    b = b.exp() / b.exp().sum(dim=2, keepdim=True)
    v = v.exp() / v.exp().sum(dim=1, keepdim=True)
    z = torch.einsum("bmd,bdi->bmi", torch.einsum("bmj,bdj->bmd", a, b), v)
    weight, bias = out
    return torch.einsum("cm,bmi->bci", weight, z) + bias[:, None] + x


def interlaced_groups(height: int, width: int, down_factor: tuple[int, int]) -> tuple[list, list]:
    """ISA (arXiv 1907.12273): groups of positions (y, x) that attend to each other: first distant, then near.

    ``height`` and ``width`` are multiples of ``down_factor``.
    """
    near_h, near_w = down_factor
    far = [
        [(y, x) for y in range(dy, height, near_h) for x in range(dx, width, near_w)]
        for dy in range(near_h)
        for dx in range(near_w)
    ]
    near = [
        [(y, x) for y in range(top, top + near_h) for x in range(left, left + near_w)]
        for top in range(0, height, near_h)
        for left in range(0, width, near_w)
    ]
    return far, near
