# CCNet with a dilated ResNet-101-v1c on ADE20K, crops of 512x512, tested on whole images.
# 160k iterations of 16 images (4 GPUs x 4).
# Published: mIoU 43.71 at one scale, 45.04 at six scales with flips (mmsegmentation model zoo).
_base_ = "./ccnet_r50_ade20k.py"

model = dict(pretrained="open-mmlab://resnet101_v1c", backbone=dict(depth=101))
