# A head of one attention module, here CBAM, with a dilated ResNet-50-v1c on Cityscapes, crops of 769x769,
# tested by sliding windows. 80k iterations of 8 images (4 GPUs x 2).
# No figure is published for this network. docs/attention.md lists the modules that can take CBAM's place:
# --cfg-options model.decode_head.attention.type=TripletAttention
_base_ = "./_base_/recipes/cityscapes.py"

model = dict(decode_head=dict(type="AttentionHead", attention=dict(type="CBAM")))
