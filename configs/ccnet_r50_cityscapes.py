# CCNet with a dilated ResNet-50-v1c on Cityscapes, crops of 769x769, tested by sliding windows.
# 80k iterations of 8 images (4 GPUs x 2).
# Published: mIoU 79.29 at one scale, 81.08 at six scales with flips (mmsegmentation model zoo).
_base_ = "./_base_/recipes/cityscapes.py"

model = dict(decode_head=dict(type="CCNetHead", recurrence=2))
