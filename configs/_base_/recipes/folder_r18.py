# Networks on a data set of one's own without a GPU: a ResNet-18 of half width from scratch, heads of an
# eighth of the width. Nothing is downloaded.
_base_ = "./folder.py"

norm_cfg = dict(type="BN", requires_grad=True)  # one device needs no synchronisation
model = dict(
    pretrained=None,
    backbone=dict(depth=18, base_channels=32, stem_channels=32, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=256, channels=64, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=128, channels=32, norm_cfg=norm_cfg),
)
# In so few iterations from scratch AdamW reaches a better result than SGD.
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=3e-3, weight_decay=1e-4))
