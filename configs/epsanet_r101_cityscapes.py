# Dilated EPSANet-101 with EPSANetHead on Cityscapes, crops of 769x769, tested by sliding windows.
# 80k iterations of 8 images (4 GPUs x 2).
# No figure is published for this network, nor weights of its backbone, which starts from scratch.
_base_ = "./epsanet_r50_cityscapes.py"

model = dict(backbone=dict(depth=101))
