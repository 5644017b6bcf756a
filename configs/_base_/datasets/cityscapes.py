# Cityscapes, 2975 training and 500 validation frames of 1024x2048, 19 classes, cropped to 769x769. Frames are
# resized to 1025x2049 first: with aligned corners, sides of 8n + 1 put the feature grid on the pixels.
# Total batch 8: 4 GPUs x 2 images.
dataset_type = "CityscapesDataset"
data_root = "data/cityscapes"
prepare_command = "python tools/prepare_dataset.py cityscapes data/cityscapes"
num_classes = 19
crop_size = (769, 769)  # height, width
image_scale = (2049, 1025)  # width, height, as the resizing transforms take it
# Multiples of image_scale: so were mmseg's published multi-scale figures measured, by its version 0.x
# (img_ratios of img_scale). The configs of mmseg 1.x take multiples of the image's own size.
tta_ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

train_pipeline = [
    dict(
        type="LoadTrainingCrop",
        scale=image_scale,
        ratio_range=(0.5, 2.0),
        crop_size=crop_size,
        cat_max_ratio=0.75,
        flip_prob=0.5,
    ),
    dict(type="FastPhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=image_scale, keep_ratio=True),
    dict(type="LoadAnnotations"),  # after Resize: the truth keeps its size
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=tuple(int(side * ratio) for side in image_scale), keep_ratio=True)
                for ratio in tta_ratios
            ],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="ExactIoUMetric", iou_metrics=["mIoU"], output_format="cityscapes")
test_evaluator = val_evaluator
