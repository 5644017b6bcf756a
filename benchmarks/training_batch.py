"""What a training step eats."""

import torch

from benchmarks.networks import NUM_CLASSES

BATCH = 2


def batch(size: tuple[int, int], pinned: bool = False) -> dict[str, list]:
    """Random images, and labels of large segments, as a data loader collates them.

    Args:
        size: height and width.
        pinned: whether they lie in memory from which a GPU copies by itself.
    """
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for _ in range(BATCH)]
    samples = []
    for _ in inputs:
        cells = torch.randint(0, NUM_CLASSES, (1, *(side // 32 + 1 for side in size)), generator=generator)
        label = cells.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, : size[0], : size[1]]
        label = label.pin_memory() if pinned else label
        meta = dict(img_shape=size, ori_shape=size)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=meta))
    return dict(inputs=[image.pin_memory() if pinned else image for image in inputs], data_samples=samples)
