# PSDANet with a dilated ResNet-50-v1c on Cityscapes, crops of 769x769, tested by sliding windows.
# 80k iterations of 8 images (4 GPUs x 2).
# No figure is published for this network.
_base_ = "./_base_/recipes/cityscapes.py"

model = dict(decode_head=dict(type="PSDAHead", query_channels=16))
