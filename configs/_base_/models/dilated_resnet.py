# ResNet-50-v1c at stride 8, a decode head on its stage 4 and an auxiliary FCN head on its stage 3. A recipe
# adds num_classes to both heads and the crop's size to data_preprocessor; a leaf adds the decode head's type.
#
# In training these modules keep only their input and are computed again for the backward pass. They take a
# third of the backbone's memory and a tenth of its forward pass. recompute=[] recomputes nothing.
recompute = ["backbone.stem", "backbone.layer1", "backbone.layer2"]
norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    type="LeanEncoderDecoder",
    # Mean and standard deviation of ImageNet in RGB, with which the pretrained backbones were trained.
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    pretrained="open-mmlab://resnet50_v1c",
    backbone=dict(
        type="ResNetV1c",
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        style="pytorch",
        norm_cfg=norm_cfg,
        norm_eval=False,
    ),
    decode_head=dict(
        in_channels=2048,
        in_index=3,
        channels=512,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type="FullyConvolutionalHead",
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
