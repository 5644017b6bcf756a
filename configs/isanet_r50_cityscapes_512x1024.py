# ISANet with a dilated ResNet-50-v1c on Cityscapes, crops of 512x1024, tested on whole frames.
# 80k iterations of 8 images (4 GPUs x 2).
# Published: mIoU 78.68 at one scale, 80.25 at six scales with flips (mmsegmentation model zoo).
_base_ = "./_base_/recipes/cityscapes_512x1024.py"

model = dict(decode_head=dict(type="ISANetHead", isa_channels=256, down_factor=(8, 8)))
