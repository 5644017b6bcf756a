# PSANet with a dilated ResNet-101-v1c on ADE20K, crops of 512x512, tested on whole images.
# 160k iterations of 16 images (4 GPUs x 4).
# Published: mIoU 43.74 at one scale, 45.38 at six scales with flips (mmsegmentation model zoo).
_base_ = "./psanet_r50_ade20k.py"

model = dict(pretrained="open-mmlab://resnet101_v1c", backbone=dict(depth=101))
