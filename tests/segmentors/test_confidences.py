"""The probabilities of labels, compared with those of mmseg's logits."""

import torch

from danseg.segmentors import label_confidences


def test_confidences_are_the_probabilities_of_the_labels(build, batch, case):
    arguments, images = case
    with torch.no_grad():
        theirs = build(**arguments).test_step(batch(**images))
        ours = build(**arguments, lean=True).test_step(batch(**images))
    for mine, want in zip(ours, theirs, strict=True):
        lazy = getattr(mine.seg_logits, "coarse", None)
        found = label_confidences(mine)
        assert getattr(mine.seg_logits, "coarse", None) is lazy, "the logits were made"
        logits = want.seg_logits.data.double()
        if len(logits) == 1:
            expected = torch.where(mine.pred_sem_seg.data[0] > 0, logits[0], 1 - logits[0])
        else:
            expected = logits.softmax(0).amax(0)
        assert found.shape == mine.pred_sem_seg.data.shape[1:]
        assert (found - expected).abs().max() < 1e-3  # the rounding of mmseg's resizing
