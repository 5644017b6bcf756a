# Dilated EPSANet-50 with EPSANetHead on ADE20K, crops of 512x512, tested on whole images.
# 160k iterations of 16 images (4 GPUs x 4).
# No figure is published for this network, nor weights of its backbone, which starts from scratch.
_base_ = "./_base_/recipes/ade20k.py"

recompute = ["backbone.layer1", "backbone.layer2"]  # its stem is one convolution
model = dict(
    pretrained=None,
    backbone=dict(type="VariantResNet", conv2="pyramid_split"),
    decode_head=dict(type="EPSANetHead", reduction=16),
)
