# Networks on the rendered street scenes: a ResNet-18 of half width from scratch, heads of an eighth of the
# width, minutes of training, tested on whole frames.
_base_ = [
    "../models/dilated_resnet.py",
    "../datasets/demo.py",
    "../schedules/demo.py",
    "../runtime.py",
]

norm_cfg = dict(type="BN", requires_grad=True)  # one device needs no synchronisation
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    pretrained=None,
    backbone=dict(depth=18, base_channels=32, stem_channels=32, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=256, channels=64, num_classes=_base_.num_classes, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=128, channels=32, num_classes=_base_.num_classes, norm_cfg=norm_cfg),
)
