# CCNet with a dilated ResNet-50-v1c on ADE20K, crops of 512x512, tested on whole images.
# 160k iterations of 16 images (4 GPUs x 4).
# Published: mIoU 42.08 at one scale, 43.13 at six scales with flips (mmsegmentation model zoo).
_base_ = "./_base_/recipes/ade20k.py"

model = dict(decode_head=dict(type="CCNetHead", recurrence=2))
