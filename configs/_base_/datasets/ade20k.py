# ADE20K (the scene-parsing benchmark), 20210 training and 2000 validation images of many sizes, 150 classes,
# brought to a short side of 512 and cropped to 512x512. The data set shifts label 0, "other", to ignored.
# Total batch 16: 4 GPUs x 4 images.
dataset_type = "ADE20KDataset"
data_root = "data/ade/ADEChallengeData2016"
prepare_command = "python tools/prepare_dataset.py ade20k SOURCE"
num_classes = 150
crop_size = (512, 512)  # height, width
image_scale = (2048, 512)  # bounds of the long and the short side: the short one becomes 512
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
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
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
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="ExactIoUMetric", iou_metrics=["mIoU"], output_format="ade20k")
test_evaluator = val_evaluator
