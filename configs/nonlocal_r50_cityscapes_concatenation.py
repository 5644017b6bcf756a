# Non-local network (concatenation) with a dilated ResNet-50-v1c on Cityscapes, crops of 769x769.
# 80k iterations of 8 images (4 GPUs x 2).
# No figure is published for this mode.
_base_ = "./nonlocal_r50_cityscapes.py"

model = dict(decode_head=dict(mode="concatenation"))
