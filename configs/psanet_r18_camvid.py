# danet_r18_camvid.py with PSANetHead in place of DANet's head and nothing else changed, trained from
# scratch in total batches of 8. No figure is published for this recipe.
_base_ = "./danet_r18_camvid.py"

model = dict(
    decode_head=dict(
        _delete_=True,
        type="PSANetHead",
        in_channels=512,
        in_index=3,
        channels=128,
        mask_size=(23, 29),
        psa_type="bi-direction",
        compact=False,
        shrink_factor=2,
        normalization_factor=1.0,
        psa_softmax=True,
        dropout_ratio=0.1,
        num_classes=_base_.num_classes,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
)
