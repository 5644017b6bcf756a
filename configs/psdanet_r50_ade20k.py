# PSDANet with a dilated ResNet-50-v1c on ADE20K, crops of 512x512, tested on whole images.
# 160k iterations of 16 images (4 GPUs x 4).
# No figure is published for this network.
_base_ = "./_base_/recipes/ade20k.py"

model = dict(decode_head=dict(type="PSDAHead", query_channels=16))
