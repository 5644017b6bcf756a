# DANet with a dilated ResNet-18 of half width on the rendered street scenes, trained from scratch in total
# batches of 4: small enough for a laptop's processor. No figure is published for this recipe.
_base_ = [
    "./_base_/models/dilated_resnet.py",
    "./_base_/datasets/demo.py",
    "./_base_/schedules/demo.py",
    "./_base_/runtime.py",
]

norm_cfg = dict(type="BN", requires_grad=True)  # one device needs no synchronisation
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    pretrained=None,
    backbone=dict(depth=18, base_channels=32, stem_channels=32, norm_cfg=norm_cfg),
    decode_head=dict(
        type="DANetHead",
        in_channels=256,
        in_index=3,
        channels=64,
        pam_channels=8,
        with_pam=True,
        with_cam=True,
        dropout_ratio=0.1,
        num_classes=_base_.num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(in_channels=128, channels=32, num_classes=_base_.num_classes, norm_cfg=norm_cfg),
)
