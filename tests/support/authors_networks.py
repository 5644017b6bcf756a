"""Networks in the layouts of their authors, written plainly from papers and names of tensors.

A :class:`Plain` makes a tensor when a layer is run for the first time, under the name that the layer has in
the authors' files, and uses it from then on. What a function computes with it is the authors' equation, and
``weights`` is a checkpoint of theirs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


class Plain:
    """Layers by name, with random weights in float64.

    Args:
        seed: of the weights.
        counters: whether norms have ``num_batches_tracked``.
    """

    def __init__(self, seed: int = 0, counters: bool = True) -> None:
        self.weights: dict[str, Tensor] = {}
        self.counters = counters
        self._draw = torch.Generator().manual_seed(seed)

    def tensor(self, name: str, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        if name not in self.weights:
            drawn = torch.randn(shape, generator=self._draw, dtype=torch.float64)
            self.weights[name] = drawn * scale + shift
        return self.weights[name]

    def conv(self, name: str, x: Tensor, out: int, size: int = 1, *, bias: bool = False, **how) -> Tensor:
        inner = x.shape[1] // how.get("groups", 1)
        weight = self.tensor(f"{name}.weight", out, inner, size, size, scale=(inner * size * size) ** -0.5)
        offset = self.tensor(f"{name}.bias", out, scale=0.2) if bias else None
        how.setdefault("padding", size // 2 * how.get("dilation", 1))
        return F.conv2d(x, weight, offset, **how)

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Batch norm with stored statistics."""
        return self._normal(name, x, lambda weight: weight)

    def in_place_norm(self, name: str, x: Tensor) -> Tensor:
        """In-Place Activated BatchNorm without its activation: its factor is ``|weight| + eps``."""
        return self._normal(name, x, lambda weight: weight.abs() + 1e-5)

    def _normal(self, name: str, x: Tensor, factor) -> Tensor:
        channels = x.shape[1]
        weight = factor(self.tensor(f"{name}.weight", channels))
        bias = self.tensor(f"{name}.bias", channels, scale=0.3)
        mean = self.tensor(f"{name}.running_mean", channels, scale=0.3)
        variance = self.tensor(f"{name}.running_var", channels, scale=0.2, shift=1.5).abs()
        self.weights[f"{name}.running_var"] = variance
        if self.counters:
            self.weights[f"{name}.num_batches_tracked"] = torch.tensor(7)
        x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return x * weight[:, None, None] + bias[:, None, None]

    def linear(self, name: str, x: Tensor, out: int) -> Tensor:
        weight = self.tensor(f"{name}.weight", out, x.shape[1], scale=x.shape[1] ** -0.5)
        return x @ weight.T + self.tensor(f"{name}.bias", out)


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def stage(
    net: Plain,
    name: str,
    x: Tensor,
    planes: int,
    dilations: list[int],
    stride: int = 1,
    *,
    norm=Plain.norm,
    basic: bool = False,
    pooled: bool = False,
    conv2=None,
) -> Tensor:
    """A stage of a ResNet; ``conv2(net, name, x, stride, dilation, index)`` replaces the 3x3 convolution."""
    for index, dilation in enumerate(dilations):
        block, step = f"{name}.{index}", stride if index == 0 else 1
        out, shortcut = planes if basic else 4 * planes, x
        if index == 0 and (step != 1 or x.shape[1] != out):
            place = 1 if pooled else 0
            if pooled:
                shortcut = F.avg_pool2d(x, step, step, ceil_mode=True, count_include_pad=False)
            shortcut = net.conv(f"{block}.downsample.{place}", shortcut, out, stride=1 if pooled else step)
            shortcut = norm(net, f"{block}.downsample.{place + 1}", shortcut)
        if basic:
            y = net.conv(f"{block}.conv1", x, planes, 3, stride=step, dilation=dilation)
            y = norm(net, f"{block}.bn1", y).relu()
            y = norm(net, f"{block}.bn2", net.conv(f"{block}.conv2", y, planes, 3))
        else:
            y = norm(net, f"{block}.bn1", net.conv(f"{block}.conv1", x, planes)).relu()
            if conv2 is None:
                y = net.conv(f"{block}.conv2", y, planes, 3, stride=step, dilation=dilation)
                y = norm(net, f"{block}.bn2", y).relu()
            else:
                y = conv2(net, block, y, step, dilation, index)
            y = norm(net, f"{block}.bn3", net.conv(f"{block}.conv3", y, out))
        x = (y + shortcut).relu()
    return x


def contracted(blocks: int, dilation: int) -> list[int]:
    """Dilations of a stage whose first block has half of the others', as in torchvision and DANet."""
    return [max(1, dilation // 2)] + [dilation] * (blocks - 1)


def deep_stem(net: Plain, names: dict[str, str], x: Tensor, narrow: int, out: int, norm=Plain.norm) -> Tensor:
    """Three convolutions, the first with a stride of 2; ``names`` are of the convolutions and their norms."""
    for index, ((conv, bn), channels) in enumerate(zip(names.items(), (narrow, narrow, out), strict=True)):
        x = norm(net, bn, net.conv(conv, x, channels, 3, stride=2 if index == 0 else 1)).relu()
    return x


ENCODING_STEM = {"conv1.0": "conv1.1", "conv1.3": "conv1.4", "conv1.6": "bn1"}


def classifier(net: Plain, x: Tensor, depth: int = 50, base: int = 8, *, stem: int = 0, **how) -> Tensor:
    """A classifier of ImageNet: stem, four stages at strides of 4 to 32, mean, ``fc``.

    Args:
        stem: the first two widths of a deep stem; 0 for one convolution of 7x7.
        **how: as for :func:`stage`.
    """
    if stem:
        x = deep_stem(net, ENCODING_STEM, x, stem, 2 * stem)
    else:
        x = net.norm("bn1", net.conv("conv1", x, base, 7, stride=2)).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for index, blocks in enumerate(BLOCKS[depth]):
        x = stage(net, f"layer{index + 1}", x, base * 2**index, [1] * blocks, 1 if index == 0 else 2, **how)
    return net.linear("fc", x.mean((2, 3)), 10)


def dilated(
    net: Plain, x: Tensor, base: int, dilations: list[list[int]], start: str = "", **how
) -> list[Tensor]:
    """The maps of the last two stages of a ResNet-50 behind its stem, at an eighth of the image's size."""
    maps = []
    for index in range(4):
        step = 2 if index == 1 else 1
        x = stage(net, f"{start}layer{index + 1}", x, base * 2**index, dilations[index], step, **how)
        maps.append(x)
    return maps[2:]


def position_attention(net: Plain, name: str, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    query, key = (
        net.conv(f"{name}.{one}_conv", x, max(1, channels // 8), bias=True).flatten(2)
        for one in ("query", "key")
    )
    value = net.conv(f"{name}.value_conv", x, channels, bias=True).flatten(2)
    attention = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (B, N, N)
    out = value @ attention.transpose(1, 2)
    return net.tensor(f"{name}.gamma", 1) * out.view(x.shape) + x


def channel_attention(net: Plain, name: str, x: Tensor) -> Tensor:
    flat = x.flatten(2)
    energy = flat @ flat.transpose(1, 2)
    attention = torch.softmax(energy.max(-1, keepdim=True)[0] - energy, dim=-1)
    return net.tensor(f"{name}.gamma", 1) * (attention @ flat).view(x.shape) + x


def danet(net: Plain, x: Tensor, classes: int = 19, base: int = 8, deep: bool = False) -> Tensor:
    """DANet of its authors, with a ResNet-50: coarse fused logits."""
    if deep:
        names = {f"pretrained.{conv}": f"pretrained.{bn}" for conv, bn in ENCODING_STEM.items()}
        x = deep_stem(net, names, x, base, 2 * base)
    else:
        x = net.norm("pretrained.bn1", net.conv("pretrained.conv1", x, base, 7, stride=2)).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    grids = [[1] * 3, [1] * 4, contracted(6, 2), [4, 8, 16]]
    _, x = dilated(net, x, base, grids, "pretrained.")

    def conv(name: str, y: Tensor) -> Tensor:
        return net.norm(f"head.{name}.1", net.conv(f"head.{name}.0", y, x.shape[1] // 4, 3)).relu()

    position = conv("conv51", position_attention(net, "head.sa", conv("conv5a", x)))
    channel = conv("conv52", channel_attention(net, "head.sc", conv("conv5c", x)))
    net.conv("head.conv6.1", position, classes, bias=True)  # of training alone
    net.conv("head.conv7.1", channel, classes, bias=True)
    return net.conv("head.conv8.1", position + channel, classes, bias=True)


def criss_cross(net: Plain, name: str, x: Tensor) -> Tensor:
    channels = max(1, x.shape[1] // 8)
    query, key = (net.conv(f"{name}.{one}_conv", x, channels, bias=True) for one in ("query", "key"))
    value = net.conv(f"{name}.value_conv", x, x.shape[1], bias=True)
    out = torch.zeros_like(x)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            others = [
                one for one in range(x.shape[2]) if one != row
            ]  # its own position counts once, in the row
            keys = torch.cat([key[:, :, others, column], key[:, :, row]], dim=2)
            values = torch.cat([value[:, :, others, column], value[:, :, row]], dim=2)
            weight = torch.softmax(torch.einsum("bc,bcn->bn", query[:, :, row, column], keys), dim=1)
            out[:, :, row, column] = torch.einsum("bn,bcn->bc", weight, values)
    return net.tensor(f"{name}.gamma", 1) * out + x


def ccnet(net: Plain, x: Tensor, classes: int = 19, base: int = 8, auxiliary: bool = True) -> Tensor:
    """CCNet of its authors, with a ResNet-50: coarse logits, and in ``net.auxiliary`` those of ``dsn``."""
    norm = Plain.in_place_norm
    stem = {f"conv{index}": f"bn{index}" for index in (1, 2, 3)}
    x = F.max_pool2d(deep_stem(net, stem, x, base, 2 * base, norm), 3, 2, 1, ceil_mode=True)
    third, x = dilated(net, x, base, [[1] * 3, [1] * 4, [2] * 6, [4] * 3], norm=norm)

    def leaky(conv: str, bn: str, y: Tensor, out: int, bias: bool = False) -> Tensor:
        return F.leaky_relu(norm(net, bn, net.conv(conv, y, out, 3, bias=bias)), 0.01)

    if auxiliary:
        y = leaky("dsn.0", "dsn.1", third, x.shape[1] // 4, bias=True)
        net.auxiliary = net.conv("dsn.3", y, classes, bias=True)
    y = leaky("head.conva.0", "head.conva.1", x, x.shape[1] // 4)
    for _ in range(2):
        y = criss_cross(net, "head.cca", y)
    y = leaky("head.convb.0", "head.convb.1", y, x.shape[1] // 4)
    y = leaky("head.bottleneck.0", "head.bottleneck.1", torch.cat([x, y], 1), x.shape[1] // 4)
    return net.conv("head.bottleneck.3", y, classes, bias=True)


def point_wise_mask(energy: Tensor, side: int, collect: bool) -> Tensor:
    """(B, N, N): entry (i, j) is what position i gives to j; 0 outside the masks of their owners."""
    batch, _, height, width = energy.shape
    half = (side - 1) // 2
    found = energy.new_zeros(batch, height * width, height * width)
    for row in range(height):
        for column in range(width):
            owner = row * width + column
            for other in range(height * width):
                down, right = other // width - row + half, other % width - column + half
                if 0 <= down < side and 0 <= right < side:
                    value = energy[:, down * side + right, row, column]
                    if collect:
                        found[:, other, owner] = value
                    else:
                        found[:, owner, other] = value
    return found


def psanet(net: Plain, x: Tensor, classes: int = 19, base: int = 8, side: int = 7, kind: int = 2) -> Tensor:
    """PSANet of its authors, with a ResNet-50, for sides of 8n + 1: coarse logits; ``aux`` beside."""
    stem = {f"layer0.{index}": f"layer0.{index + 1}" for index in (0, 3, 6)}
    x = F.max_pool2d(deep_stem(net, stem, x, base, 2 * base), 3, 2, 1)
    third, x = dilated(net, x, base, [[1] * 3, [1] * 4, [2] * 6, [4] * 3])
    channels = x.shape[1] // 4
    y = net.norm("aux.1", net.conv("aux.0", third, channels // 2, 3)).relu()
    net.auxiliary = net.conv("aux.4", y, classes, bias=True)
    gathered = []
    for suffix, collect in {2: [("", True), ("_p", False)], 0: [("", True)], 1: [("", False)]}[kind]:
        y = net.norm(f"psa.reduce{suffix}.1", net.conv(f"psa.reduce{suffix}.0", x, channels)).relu()
        size = [(one - 1) // 2 + 1 for one in x.shape[2:]]
        y = F.interpolate(y, size, mode="bilinear", align_corners=True)
        name = f"psa.attention{suffix}"
        hidden = net.norm(f"{name}.1", net.conv(f"{name}.0", y, channels)).relu()
        mask = point_wise_mask(net.conv(f"{name}.3", hidden, side * side), side, collect)
        gathered.append((y.flatten(2) @ mask.softmax(dim=1)).view(y.shape))
    y = net.norm("psa.proj.1", net.conv("psa.proj.0", torch.cat(gathered, 1), x.shape[1])).relu()
    y = torch.cat([x, F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True)], 1)
    y = net.norm("cls.1", net.conv("cls.0", y, channels, 3)).relu()
    return net.conv("cls.4", y, classes, bias=True)


def torchvision_fcn(
    net: Plain, x: Tensor, classes: int = 21, base: int = 8, auxiliary: bool = True
) -> Tensor:
    """torchvision's FCN with a ResNet-50: coarse logits, those of ``aux_classifier`` beside."""
    x = net.norm("backbone.bn1", net.conv("backbone.conv1", x, base, 7, stride=2)).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    grids = [[1] * 3, [1] * 4, contracted(6, 2), contracted(3, 4)]
    third, x = dilated(net, x, base, grids, "backbone.")
    if auxiliary:
        y = net.norm("aux_classifier.1", net.conv("aux_classifier.0", third, third.shape[1] // 4, 3)).relu()
        net.auxiliary = net.conv("aux_classifier.4", y, classes, bias=True)
    y = net.norm("classifier.1", net.conv("classifier.0", x, x.shape[1] // 4, 3)).relu()
    return net.conv("classifier.4", y, classes, bias=True)


def pyramid_split(groups=(1, 2, 4, 4), sizes=(3, 5, 7, 9)):
    """EPSANet's second convolution and the norm behind it."""

    def conv2(net: Plain, block: str, x: Tensor, stride: int, dilation: int, index: int) -> Tensor:
        out = x.shape[1] // 4
        parts, energies = [], []
        for branch, (size, count) in enumerate(zip(sizes, groups, strict=True), start=1):
            part = net.conv(f"{block}.conv2.conv_{branch}", x, out, size, stride=stride, groups=count)
            pooled = part.mean((2, 3), keepdim=True)
            squeezed = net.conv(f"{block}.conv2.se.fc1", pooled, max(1, out // 4), bias=True).relu()
            energies.append(net.conv(f"{block}.conv2.se.fc2", squeezed, out, bias=True).sigmoid())
            parts.append(part)
        weight = torch.stack(energies, 1).softmax(dim=1)
        y = torch.cat([weight[:, branch] * parts[branch] for branch in (3, 2, 1, 0)], 1)
        return net.norm(f"{block}.bn2", y).relu()

    return conv2


def split_attention(radix: int = 2, cardinal: int = 1, keeps_pooling: bool = True):
    """ResNeSt's second convolution, with the pooling behind it that applies the stride."""

    def conv2(net: Plain, block: str, x: Tensor, stride: int, dilation: int, index: int) -> Tensor:
        channels = x.shape[1]
        y = net.conv(
            f"{block}.conv2.conv", x, channels * radix, 3, dilation=dilation, groups=cardinal * radix
        )
        y = net.norm(f"{block}.conv2.bn0", y).relu()
        splits = y.split(channels, dim=1)
        pooled = sum(splits).mean((2, 3), keepdim=True)
        squeezed = net.conv(
            f"{block}.conv2.fc1", pooled, max(channels * radix // 4, 32), bias=True, groups=cardinal
        )
        squeezed = net.norm(f"{block}.conv2.bn1", squeezed).relu()
        energy = net.conv(f"{block}.conv2.fc2", squeezed, channels * radix, bias=True, groups=cardinal)
        energy = energy.view(x.shape[0], cardinal, radix, -1)
        weight = energy.softmax(dim=2) if radix > 1 else energy.sigmoid()
        weight = weight.transpose(1, 2).reshape(x.shape[0], radix, channels, 1, 1)
        y = sum(weight[:, one] * splits[one] for one in range(radix))
        first = index == 0 and not block.startswith("layer1")
        return F.avg_pool2d(y, 3, stride, 1) if stride > 1 or (first and keeps_pooling) else y

    return conv2
