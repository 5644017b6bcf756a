# Dilated EPSANet-50 with EPSANetHead on Cityscapes, crops of 769x769, tested by sliding windows.
# 80k iterations of 8 images (4 GPUs x 2).
# No figure is published for this network, nor weights of its backbone, which starts from scratch.
_base_ = "./_base_/recipes/cityscapes.py"

recompute = ["backbone.layer1", "backbone.layer2"]  # its stem is one convolution
model = dict(
    pretrained=None,
    backbone=dict(type="VariantResNet", conv2="pyramid_split"),
    decode_head=dict(type="EPSANetHead", reduction=16),
)
