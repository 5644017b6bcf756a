"""danseg.ops.upsampled_argmax against torch's and mmseg's own resizing, its memory, and its errors."""

import sys

import pytest
import torch
from torch.nn.functional import interpolate

from danseg.ops import upsampled_argmax
from danseg.ops.upsampled_argmax import rows_needed

CASES = [
    # logits, size, through, padding (left, right, top, bottom)
    ((2, 19, 33, 47), (200, 311), None, (0, 0, 0, 0)),
    ((1, 3, 5, 90), (40, 720), None, (0, 0, 0, 0)),  # several tiles side by side, eight times
    ((2, 5, 30, 41), (11, 9), None, (0, 0, 0, 0)),  # smaller
    ((1, 4, 12, 10), (5, 37), None, (0, 0, 0, 0)),  # smaller and larger
    ((2, 4, 9, 11), (9, 11), None, (0, 0, 0, 0)),  # the same
    ((1, 3, 1, 1), (4, 6), None, (0, 0, 0, 0)),
    ((1, 3, 6, 5), (1, 1), None, (0, 0, 0, 0)),
    ((2, 7, 8, 11), (50, 70), (64, 88), (0, 0, 0, 0)),  # enlarged, then reduced
    ((2, 7, 8, 11), (100, 140), (64, 88), (3, 4, 0, 10)),
    ((1, 6, 20, 30), (55, 43), (7, 9), (1, 0, 0, 2)),  # reduced, then enlarged: cells far apart
    ((1, 5, 16, 20), (31, 29), None, (2, 1, 3, 0)),  # cut without an intermediate size
    ((1, 300, 4, 5), (9, 12), None, (0, 0, 0, 0)),
]


def _resized(logits, size, *, align_corners, through=None, padding=(0, 0, 0, 0)):
    if through is not None:
        logits = interpolate(logits, through, mode="bilinear", align_corners=align_corners)
    left, right, top, bottom = padding
    logits = logits[:, :, top : logits.shape[2] - bottom, left : logits.shape[3] - right]
    return interpolate(logits, size, mode="bilinear", align_corners=align_corners)


def _logits(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("shape", "size", "through", "padding"), CASES, ids=str)
def test_equals_resizing_and_argmax_in_float64(shape, size, through, padding, align_corners, device):
    logits = _logits(*shape)
    options = dict(align_corners=align_corners, through=through, padding=padding)
    labels = upsampled_argmax(logits.to(device), size, **options)
    assert labels.dtype == (torch.uint8 if shape[1] <= 256 else torch.int16)
    assert labels.device.type == device.type
    assert torch.equal(labels.long().cpu(), _resized(logits, size, **options).argmax(1))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("shape", "size", "through", "padding"), CASES, ids=str)
def test_narrower_logits_differ_only_where_classes_are_equal_to_rounding(
    shape, size, through, padding, dtype, align_corners, device
):
    logits = _logits(*shape, dtype=dtype)
    options = dict(align_corners=align_corners, through=through, padding=padding)
    labels = upsampled_argmax(logits.to(device), size, **options).long().cpu()
    exact = _resized(logits.double(), size, **options)
    lead = exact.amax(1) - exact.gather(1, labels[:, None])[:, 0]  # of the best class over the chosen one
    assert lead.max() < 2e-6 * logits.abs().max()
    # torch's float32 coordinates make its result less exact, but hardly ever change the class.
    theirs = _resized(logits.float(), size, **options).argmax(1)
    assert (labels != theirs).double().mean() < 1e-3


def test_the_products_can_do_without_onednn():
    logits = _logits(1, 19, 16, 32, dtype=torch.float32)
    with torch.backends.mkldnn.flags(enabled=False):
        labels = upsampled_argmax(logits, (128, 256))
    assert (labels != upsampled_argmax(logits, (128, 256))).sum() <= 1


@pytest.mark.parametrize("tile_bytes", [1, 5000, 10**9])
def test_the_size_of_tiles_changes_nothing(tile_bytes, monkeypatch, device):
    for name in ("_TILE_BYTES", "_TILE_BYTES_GPU"):
        monkeypatch.setattr(sys.modules["danseg.ops.upsampled_argmax"], name, tile_bytes)
    logits = _logits(2, 5, 12, 50)
    labels = upsampled_argmax(logits.to(device), (96, 400))
    assert torch.equal(labels.long().cpu(), _resized(logits, (96, 400), align_corners=False).argmax(1))


@pytest.mark.parametrize("strides", ["channels_last", "expanded", "sliced"])
def test_any_strides_and_the_logits_stay_as_they_were(strides, device):
    logits = _logits(2, 5, 12, 14).to(device)
    if strides == "channels_last":
        logits = logits.to(memory_format=torch.channels_last)
    elif strides == "expanded":
        logits = logits[:, :, :, :1].expand(-1, -1, -1, 6)
    else:
        logits = logits[:, 1:4, ::2, 3:]
    before = logits.clone()
    for size in ((12, 14), (30, 31)):
        expected = _resized(logits.contiguous().cpu(), size, align_corners=False).argmax(1)
        assert torch.equal(upsampled_argmax(logits, size).long().cpu(), expected)
    assert torch.equal(logits, before)


def test_of_equal_classes_the_first_wins(device):
    logits = torch.zeros(1, 5, 3, 4, device=device)
    logits[:, 2] = logits[:, 4] = 1.0
    assert (upsampled_argmax(logits, (9, 16)) == 2).all()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_infinite_and_missing_logits_win_where_they_take_part_and_nowhere_else(value, device):
    logits = _logits(1, 4, 6, 6, dtype=torch.float32).to(device)
    plain = upsampled_argmax(logits, (24, 24))
    logits[0, 3, 2, 2] = value
    labels = upsampled_argmax(logits, (24, 24))
    centre = slice(2 * 4 + 1, 2 * 4 + 3)
    assert (labels[0, centre, centre] == 3).all()
    far = torch.ones(24, 24, dtype=torch.bool, device=device)
    far[4:16, 4:16] = False
    assert torch.equal(labels[0][far], plain[0][far])
    assert logits.isfinite().sum() == logits.numel() - 1  # it stayed as it was


def test_a_class_masked_by_minus_infinity_never_wins(device):
    logits = _logits(1, 3, 5, 5, dtype=torch.float32).to(device)
    logits[:, 1] = -torch.inf
    labels = upsampled_argmax(logits, (20, 20))
    assert torch.equal(labels // 2, upsampled_argmax(logits[:, ::2], (20, 20)))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_a_single_class_exceeds_a_threshold(threshold, device):
    logits = _logits(2, 1, 9, 13).to(device)
    labels = upsampled_argmax(logits, (40, 50), threshold=threshold)
    assert torch.equal(
        labels, (_resized(logits, (40, 50), align_corners=False)[:, 0].sigmoid() > threshold).byte()
    )
    assert threshold in (0, 1) or labels.unique().tolist() == [0, 1]
    assert not upsampled_argmax(logits, (40, 50)).any()  # argmax over one class


def test_mmsegs_own_post_processing_gives_the_same_labels():
    pytest.importorskip("mmseg")
    from mmseg.models import EncoderDecoder
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.structures import SegDataSample

    class Head(BaseDecodeHead):
        def forward(self, inputs):
            return inputs

    head = Head(in_channels=4, channels=4, num_classes=150, align_corners=False)
    model = EncoderDecoder.__new__(EncoderDecoder)
    torch.nn.Module.__init__(model)
    model.align_corners, model.decode_head = False, head
    meta = dict(img_shape=(64, 86), pad_shape=(64, 96), ori_shape=(101, 136), padding_size=[0, 10, 0, 0])
    logits = _logits(2, 150, 8, 12)
    resized = head.predict_by_feat(logits, [meta, meta])
    samples = model.postprocess_result(resized, [SegDataSample(metainfo=meta) for _ in range(2)])
    expected = torch.cat([sample.pred_sem_seg.data for sample in samples])
    labels = upsampled_argmax(
        logits, meta["ori_shape"], through=meta["pad_shape"], padding=meta["padding_size"]
    )
    assert torch.equal(labels.long(), expected)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("rows", [(0, 1), (0, 40), (17, 18), (33, 70), (69, 70)])
def test_some_rows_from_the_rows_that_they_need(rows, align_corners, device):
    logits = _logits(2, 5, 9, 6).to(device)
    whole = upsampled_argmax(logits, (70, 31), align_corners=align_corners)
    first, end = rows_needed(rows, 9, 70, align_corners=align_corners)
    band = logits[:, :, first:end]
    part = upsampled_argmax(band, (70, 31), align_corners=align_corners, rows=rows, band=(first, 9))
    assert torch.equal(part, whole[:, slice(*rows)])
    assert torch.equal(part, upsampled_argmax(logits, (70, 31), align_corners=align_corners, rows=rows))
    if end - first > 1:
        with pytest.raises(ValueError, match=f"need rows .{first}, {end}"):
            upsampled_argmax(
                band[:, :, :-1], (70, 31), align_corners=align_corners, rows=rows, band=(first, 9)
            )


def test_autocast_does_not_narrow_the_resizing(device):
    logits = _logits(1, 19, 16, 32, dtype=torch.float32).to(device)
    plain = upsampled_argmax(logits, (128, 256))
    with torch.autocast(device.type, torch.bfloat16):
        assert torch.equal(upsampled_argmax(logits, (128, 256)), plain)


def test_inference_mode_gradients_compile_and_export(device):
    logits = _logits(2, 5, 9, 12).to(device).requires_grad_()
    plain = upsampled_argmax(logits, (40, 50), align_corners=True)
    assert not plain.requires_grad
    with torch.inference_mode():
        assert torch.equal(upsampled_argmax(logits, (40, 50), align_corners=True), plain)

    class Labels(torch.nn.Module):
        def forward(self, x):
            return upsampled_argmax(x * 1.0, (40, 50), align_corners=True) + 0

    compiled = torch.compile(Labels(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits), plain)
    program = torch.export.export(Labels(), (logits.detach(),))
    assert torch.equal(program.module()(logits.detach()), plain)


def test_operator_fulfils_torchs_contract(device):
    args = (_logits(1, 1, 5, 6).to(device), 20, 21, True, 10, 12, 1, 0, 0, 1, 0.5, 3, 9, 0, 5)
    torch.library.opcheck(torch.ops.danseg.upsampled_argmax, args)


_PEAK = """
import sys, torch
from torch.nn.functional import interpolate
from danseg.ops import upsampled_argmax
def plain(logits, size, through):
    for step in (through, size):
        logits = interpolate(logits, step, mode="bilinear")
    return logits.argmax(1)
def danseg(logits, size, through):
    return upsampled_argmax(logits, size, through=through)
function = dict(danseg=danseg, plain=plain)[sys.argv[1]]
function(torch.randn(1, 19, 16, 32), (128, 256), (128, 256))
logits = torch.randn(1, 40, 64, 86)
print(peak_growth(lambda: function(logits, (512, 683), (512, 688))))
"""


@pytest.mark.slow
def test_memory_is_far_below_the_plain_form(extra_peak):
    full = 40 * 512 * 683 * 4
    plain, ours = extra_peak(_PEAK, "plain"), extra_peak(_PEAK, "danseg")
    assert plain > 1.5 * full  # the measurement sees the full logits
    assert ours < full / 6
    assert ours < plain / 5


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 5, 4), {}, r"\(2, 5, 4\)"),
        ((1, 0, 4, 4), {}, r"\(1, 0, 4, 4\)"),
        ((1, 2, 4, 0), {}, r"\(1, 2, 4, 0\)"),
        ((1, 2, 4, 4), dict(size=(0, 8)), r"size.*\(0, 8\)"),
        ((1, 2, 4, 4), dict(size=(8,)), r"size.*\(8,\)"),
        ((1, 2, 4, 4), dict(through=(8, 0)), r"through.*\(8, 0\)"),
        ((1, 2, 4, 4), dict(padding=(2, 2, 0, 0)), r"padding.*4 rows and 4 columns.*\(2, 2, 0, 0\)"),
        ((1, 2, 4, 4), dict(padding=(-1, 0, 0, 0)), r"padding.*\(-1, 0, 0, 0\)"),
        ((1, 2, 4, 4), dict(threshold=0.5), "single class.*0.5 and 2"),
        ((1, 1, 4, 4), dict(threshold=1.5), "1.5"),
        ((1, 2, 4, 4), dict(rows=(5, 5)), r"rows.*<= 8.*\(5, 5\)"),
        ((1, 2, 4, 4), dict(rows=(0, 9)), r"rows.*\(0, 9\)"),
        ((1, 2, 4, 4), dict(band=(1, 4)), r"band.*all 4 rows.*\(1, 4\)"),
    ],
)
def test_bad_arguments_are_named(shape, options, message):
    with pytest.raises(ValueError, match=message):
        upsampled_argmax(torch.randn(shape), **{"size": (8, 8), **options})


def test_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="int64"):
        upsampled_argmax(torch.zeros(1, 2, 4, 4, dtype=torch.long), (8, 8))


def test_on_a_gpu_nothing_waits_and_a_graph_captures_it(device):
    if device.type == "cpu":
        pytest.skip("needs a CUDA device")
    logits = _logits(2, 19, 16, 32, dtype=torch.float32)
    there = logits.to(device)
    found = upsampled_argmax(there, (128, 256))  # the first call loads libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        upsampled_argmax(there, (128, 256))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = upsampled_argmax(there, (128, 256))
    there.neg_()
    graph.replay()
    assert (captured.cpu() != upsampled_argmax(-logits, (128, 256))).sum() <= 1
    assert (found.cpu() != upsampled_argmax(logits, (128, 256))).sum() <= 1
