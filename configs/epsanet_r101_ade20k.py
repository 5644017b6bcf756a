# Dilated EPSANet-101 with EPSANetHead on ADE20K, crops of 512x512, tested on whole images.
# 160k iterations of 16 images (4 GPUs x 4).
# No figure is published for this network, nor weights of its backbone, which starts from scratch.
_base_ = "./epsanet_r50_ade20k.py"

model = dict(backbone=dict(depth=101))
