# DANet with a dilated ResNet-50-v1c on Cityscapes, crops of 769x769, tested by sliding windows.
# 80k iterations of 8 images (4 GPUs x 2).
# Published: mIoU 79.27 at one scale, 80.96 at six scales with flips (mmsegmentation model zoo).
_base_ = "./_base_/recipes/cityscapes.py"

model = dict(decode_head=dict(type="DANetHead", pam_channels=64, with_pam=True, with_cam=True))
