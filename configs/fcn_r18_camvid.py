# The baseline without attention: danet_r18_camvid.py with an FCN head in place of DANet's and nothing else
# changed, trained from scratch in total batches of 8. No figure is published for this recipe.
# Its convolutions weigh what those of DANet's two branches weigh, so that attention is the difference.
_base_ = "./danet_r18_camvid.py"

model = dict(
    decode_head=dict(
        _delete_=True,
        type="FullyConvolutionalHead",
        in_channels=512,
        in_index=3,
        channels=128,
        num_convs=2,
        concat_input=True,
        dropout_ratio=0.1,
        num_classes=_base_.num_classes,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
)
