"""Prepare a trained model for inference: fewer operations and, on request, 16-bit numbers."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmseg.models import EncoderDecoder
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from danseg.apis.fast_convolutions import faster
from danseg.engine.channels import input_channels
from danseg.engine.tf32 import exact_convolutions
from danseg.errors import UserError
from danseg.export.exported_network import is_exported

#: Types that a prepared model may compute in, by name.
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Height and width of the image that is passed through the model to watch it; a small one takes no time.
_IMAGE_SIZE = (128, 128)
# Largest change by rounding, relative to the largest logit; a wrong fold changes a thousand times as much.
_TOLERANCE = 1e-4


def prepare_for_inference(
    model: EncoderDecoder,
    *,
    precision: str = "float32",
    compile: bool = False,
    fast_convolutions: bool = True,
) -> EncoderDecoder:
    """A copy of a model that gives the same results in less time and memory.

    What changes:

    * Batch norms are folded into their convolutions, if nothing else reads the convolution's output. To find
      such pairs, a small random image is passed through the model; names do not matter.
    * Parts that inference does not use are dropped: auxiliary heads; layers of the decode head that the image
      does not pass through (``DANetHead``'s classifiers of single branches); and those of the backbone's
      ``out_indices`` that the head does not read, so that their maps are freed early.
    * Convolutions run in ``channels_last`` on CPUs and, in 16 bits, on GPUs.
    * In float32 on CPUs, 1x1 convolutions are matrix products, and wide 3x3 convolutions go by Winograd's
      algorithm where maps are large enough for it to pay (:mod:`danseg.apis.fast_convolutions`); the model's
      ``repr`` says which ones.
    * In 16 bits, backbone, neck and heads store and compute in ``precision``. The exceptions are the energies
      of attention, batch norms that could not be folded, and the last convolution of a head (mmseg's
      ``conv_seg``), so that logits are float32.

    If folding or dropping parts changes the result on the small image, that change is undone.

    In float32 the logits equal the model's to 1e-5 of the largest one; on a GPU whose convolutions use TF32
    (``torch.backends.cudnn.allow_tf32``, PyTorch's default), to the rounding of TF32. In bfloat16, which has
    8 significant bits, they differ by about 1 % of it, and labels differ where classes nearly tie.

    Args:
        model: danseg's ``LeanEncoderDecoder``, mmseg's ``EncoderDecoder`` or another class derived from it,
            in float32, for example from :func:`danseg.apis.load_model`. It is not changed.
        precision: "float32", "bfloat16", or, on a GPU, "float16". bfloat16 is faster on CPUs that have
            instructions for it (AVX512-BF16, AMX), and slower on others.
        compile: let ``torch.compile`` compile backbone, neck and heads. The first few images that differ in
            size then take up to a minute each. On CPUs it needs a C++ compiler and saves at most a tenth of
            the time. Needs PyTorch 2.6.
        fast_convolutions: False leaves all convolutions as they are. Winograd's algorithm needs four times
            the weights of the widest one beside the network, 151 MB for DANet's.

    Returns:
        A model of the same class in eval mode, without gradients, for :func:`danseg.apis.predict`,
        :func:`danseg.apis.attention_maps` and mmseg's ``test_step``. It cannot be trained, and its
        ``state_dict`` differs from the given model's. ``copy.deepcopy`` copies it, and ``torch.save`` and
        ``torch.load(..., weights_only=False)`` keep it whole.

    Raises:
        UserError: the precision is unknown or not available on the model's device, or the model is of another
            class or was already prepared, as an exported network is.
    """
    parameter = next(model.parameters(), None)
    if precision == "float16" and parameter is not None and parameter.device.type == "cpu":
        raise UserError("precision float16 needs a GPU; on a CPU use bfloat16")
    if compile and not hasattr(torch.compiler, "set_stance"):
        raise UserError(f"compile=True needs PyTorch 2.6 or later, this is {torch.__version__}")
    prepared = prepared_to_leave(model, precision=precision)
    on_cpu = parameter is not None and parameter.device.type == "cpu"
    if fast_convolutions and precision == "float32" and on_cpu:
        _swap(prepared, dict(faster(prepared)))
    if compile:
        for part in _parts(prepared).values():
            part.forward = CompiledForward(part.forward)
    return prepared


def ready_for_inference(
    model: EncoderDecoder, *, precision: str = "float32", compile: bool = False
) -> EncoderDecoder:
    """A model that is going to predict: prepared, unless it is an exported network, which is already.

    Raises:
        UserError: as :func:`prepare_for_inference`; an exported network is to compute in another way.
    """
    if is_exported(model) and precision == "float32" and not compile:
        return model
    return prepare_for_inference(model, precision=precision, compile=compile)


def prepared_to_leave(model: EncoderDecoder, *, precision: str = "float32") -> EncoderDecoder:
    """:func:`prepare_for_inference` for a network that is going to run elsewhere: in float16 on a CPU, too.

    It can be exported and compared there, slowly.
    """
    _check(model, precision)
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if model.with_auxiliary_head:
        model.auxiliary_head = None
    with exact_convolutions():  # rounded to TF32, folded weights would seem to change the result
        seen = _watch(model)
        _keep_if_equal(lambda: _swap(model, seen.folds), model, seen)
        _keep_if_equal(lambda: _swap(model, dict.fromkeys(_untouched(model, seen.called))), model, seen)
        _keep_if_equal(lambda: _narrow(model), model, seen)
    _convert(model, PRECISIONS[precision], seen.image.device)
    return model


def _check(model: nn.Module, precision: str) -> None:
    if not isinstance(model, EncoderDecoder):
        raise UserError(
            f"prepare_for_inference takes mmseg's EncoderDecoder and classes made from it, got "
            f"{type(model).__name__}; unwrap it first (model.module)"
        )
    if is_exported(model):
        session = model.backbone.session
        raise UserError(
            f"{session.path} is an exported network, which was prepared before it was written and computes "
            f"in {session.description.precision}: use it as it is, or export it again in another --precision"
        )
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    parameters = list(model.parameters())
    narrow = {parameter.dtype for parameter in parameters} - {torch.float32}
    if narrow:
        raise UserError(
            f"prepare_for_inference takes a model in float32, this one holds {', '.join(map(str, narrow))}; "
            "prepare the model that was loaded, not one that has been prepared"
        )


def _decode_heads(model: EncoderDecoder) -> dict[str, Any]:
    """The decode heads by path: a single head, or the stages of a cascade."""
    head = model.decode_head
    if not isinstance(head, nn.ModuleList):
        return {"decode_head": head}
    return {f"decode_head.{index}": one for index, one in enumerate(head)}


def _parts(model: EncoderDecoder) -> dict[str, Any]:
    """The parts of a model to convert and compile, by path; not the data preprocessor."""
    neck = {"neck": model.neck} if model.with_neck else {}
    return {"backbone": model.backbone, **neck, **_decode_heads(model)}


class _Uses(TorchDispatchMode):
    """Records the outputs of convolutions, and how many operators read each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[int, Tensor] = {}  # weight of the convolution that made a tensor, by its id
        self.counts: Counter[int] = Counter()
        self._alive: list[Tensor] = []  # keeps the tensors alive, so that no id is used twice

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if id(leaf) in self.weights)
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.weights[id(out)] = args[1]
            self._alive.append(out)
        return out


@dataclass
class _Pass:
    """The record of one forward pass.

    Attributes:
        image: the model's input.
        outputs: the model's output tensors.
        called: paths of the modules that were called.
        folds: replacements for the convolutions and batch norms that can be folded, by path.
    """

    image: Tensor
    outputs: list[Tensor]
    called: set[str]
    folds: dict[str, nn.Module | None]


def _watch(model: EncoderDecoder) -> _Pass:
    """Pass a small image of noise through a model, or one of its window's size if it accepts only that."""
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    window = (model.test_cfg or {}).get("crop_size")
    channels = _channels(model)
    try:
        return _pass(model, torch.randn(1, channels, *_IMAGE_SIZE, generator=generator).to(parameter))
    except (ValueError, RuntimeError):  # some heads accept only one size of image
        if not window:
            raise
    return _pass(model, torch.randn(1, channels, *window, generator=generator).to(parameter))


def _channels(model: EncoderDecoder) -> int:
    """The channels of a model's images: as its config says, or else as the backbone's first convolution."""
    told = input_channels(model.cfg.model) if hasattr(model, "cfg") else None
    convs = (layer for layer in model.backbone.modules() if isinstance(layer, _ConvNd))
    return told or next((conv.in_channels for conv in convs), 3)


def _pass(model: EncoderDecoder, image: Tensor) -> _Pass:
    calls: Counter[str] = Counter()
    makers: dict[int, str] = {}  # path of the convolution that made a tensor, by the tensor's id
    pairs: list[tuple[str, str, int]] = []

    def before(path: str, module: nn.Module, args: tuple) -> None:
        calls[path] += 1
        if isinstance(module, _BatchNorm) and id(args[0]) in makers:
            pairs.append((makers[id(args[0])], path, id(args[0])))

    def after(path: str, module: nn.Module, args: tuple, out: Any) -> None:
        # Only if it used its own weight: some convolutions change the weight before they use it.
        if isinstance(module, _ConvNd) and uses.weights.get(id(out)) is module.weight:
            makers[id(out)] = path

    modules = dict(model.named_modules())
    with _hooks(modules, before, after), _Uses() as uses:
        outputs = _outputs(model, image)
    folds: dict[str, nn.Module | None] = {}
    for conv, norm, tensor in pairs:
        if calls[conv] == calls[norm] == uses.counts[tensor] == 1 and _can_fold(modules[conv], modules[norm]):
            folds[conv] = fuse_conv_bn_eval(modules[conv], modules[norm], modules[conv].transposed)
            folds[norm] = nn.Identity()
    return _Pass(image, outputs, set(calls), folds)


def _outputs(model: EncoderDecoder, image: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(model(image, mode="tensor")) if isinstance(leaf, Tensor)]


@contextmanager
def _hooks(modules: dict[str, nn.Module], before: Callable, after: Callable) -> Iterator[None]:
    """Call ``before(path, module, args)`` and ``after(path, module, args, out)`` around every module."""
    handles = []
    for path, module in modules.items():
        handles += [
            module.register_forward_pre_hook(lambda *args, path=path: before(path, *args)),
            module.register_forward_hook(lambda *args, path=path: after(path, *args)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _can_fold(conv: _ConvNd, norm: _BatchNorm) -> bool:
    """Whether the norm uses stored statistics, not the batch's, and PyTorch can fold the two."""
    return norm.running_mean is not None and not (conv.transposed and conv.groups > 1)


def _swap(model: nn.Module, new: dict[str, nn.Module | None]) -> Callable[[], Any]:
    """Replace the modules at some paths, with None to remove one; returns a function that undoes it."""
    old = {}
    for path, module in new.items():
        parent, _, name = path.rpartition(".")
        children = model.get_submodule(parent)._modules
        old[path], children[name] = children[name], module
    return lambda: _swap(model, old)


def _keep_if_equal(change: Callable[[], Callable[[], Any]], model: EncoderDecoder, seen: _Pass) -> None:
    """Make a change, and undo it if the model then gives another result or fails."""
    undo = change()
    try:
        found = _outputs(model, seen.image)
    except Exception:  # a model that lacks a part may raise anything
        found = []
    if len(found) != len(seen.outputs) or not all(map(_close, found, seen.outputs)):
        undo()


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool(
        (found - expected).abs().max() <= _TOLERANCE * expected.abs().max()
    )


def _untouched(model: EncoderDecoder, entered: Iterable[str]) -> list[str]:
    """Direct children of decode heads that have parameters, but no module that was called."""
    return [
        f"{head_path}.{name}"
        for head_path, head in _decode_heads(model).items()
        for name, child in head.named_children()
        if next(child.parameters(), None) is not None
        and not any(f"{path}.".startswith(f"{head_path}.{name}.") for path in entered)
    ]


def _narrow(model: EncoderDecoder) -> Callable[[], Any]:
    """Make the backbone return only the maps that the heads read; returns a function that undoes it."""
    backbone, heads = model.backbone, list(_decode_heads(model).values())
    given = getattr(backbone, "out_indices", None)
    asked: list[Any] = [getattr(head, "in_index", None) for head in heads]
    if model.with_neck or not isinstance(given, (tuple, list)) or None in asked:
        return lambda: None
    wanted = [
        [i % len(given) for i in (index if isinstance(index, (tuple, list)) else [index])] for index in asked
    ]
    kept = sorted(set().union(*wanted))
    backbone.out_indices = type(given)(given[i] for i in kept)
    for head, index, indices in zip(heads, asked, wanted, strict=True):
        places = [kept.index(i) for i in indices]
        head.in_index = type(index)(places) if isinstance(index, (tuple, list)) else places[0]

    def undo() -> None:
        backbone.out_indices = given
        for head, index in zip(heads, asked, strict=True):
            head.in_index = index

    return undo


def _convert(model: EncoderDecoder, dtype: torch.dtype, device: torch.device) -> None:
    """Convert the parts, and the tensors that enter them, to their precision and memory format."""
    # On CPUs, channels_last at least halves the time of 1x1 convolutions; CUDA's 16-bit kernels prefer it.
    pays = device.type == "cpu" or dtype != torch.float32
    memory_format = torch.channels_last if pays else torch.contiguous_format
    for part in _parts(model).values():
        part.to(dtype=dtype, memory_format=memory_format)
        for module in part.modules():
            if isinstance(module, _BatchNorm):
                module.float()  # statistics stay float32; the feature map keeps its 16 bits
    model.backbone.register_forward_pre_hook(_Cast(dtype, memory_format))
    if dtype != torch.float32:
        for head in _decode_heads(model).values():
            if getattr(head, "conv_seg", None) is not None:
                head.conv_seg.float().register_forward_pre_hook(_Cast(torch.float32))


class _Cast:
    """A hook that casts a module's input. It is a class, so that the model can be copied and saved."""

    def __init__(
        self, dtype: torch.dtype, memory_format: torch.memory_format = torch.preserve_format
    ) -> None:
        self.dtype = dtype
        # By name, because torch.save's format of pickles cannot hold a memory format.
        self.memory_format = str(memory_format).removeprefix("torch.")

    def __call__(self, module: nn.Module, args: tuple) -> tuple:
        memory_format = getattr(torch, self.memory_format)
        return (args[0].to(dtype=self.dtype, memory_format=memory_format), *args[1:])


class CompiledForward:
    """A module's compiled ``forward``; a copy of the module, and one that is loaded, compiles it again."""

    def __init__(self, forward: Callable) -> None:
        self.forward = forward
        self.compiled = torch.compile(forward)

    def __call__(self, *args, **kwargs) -> Any:
        return self.compiled(*args, **kwargs)

    def __reduce__(self) -> tuple:
        return CompiledForward, (self.forward,)
