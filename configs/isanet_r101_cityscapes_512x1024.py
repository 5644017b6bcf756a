# ISANet with a dilated ResNet-101-v1c on Cityscapes, crops of 512x1024, tested on whole frames.
# 80k iterations of 8 images (4 GPUs x 2).
# Published: mIoU 80.32 at one scale, 81.58 at six scales with flips (mmsegmentation model zoo).
_base_ = "./isanet_r50_cityscapes_512x1024.py"

model = dict(pretrained="open-mmlab://resnet101_v1c", backbone=dict(depth=101))
