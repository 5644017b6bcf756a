# Cityscapes cropped to 512x1024: only the resizing and the crop differ from cityscapes.py.
_base_ = "./cityscapes.py"

crop_size = (512, 1024)  # height, width
image_scale = (2048, 1024)  # width, height: the frames' own size

train_pipeline = [
    dict(_base_.train_pipeline[0], scale=image_scale, crop_size=crop_size),  # LoadTrainingCrop
    *_base_.train_pipeline[1:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(_base_.test_pipeline[1], scale=image_scale),  # Resize
    *_base_.test_pipeline[2:],
]
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=tuple(int(side * ratio) for side in image_scale), keep_ratio=True)
                for ratio in _base_.tta_ratios
            ],
            *_base_.tta_pipeline[1].transforms[1:],
        ],
    ),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
