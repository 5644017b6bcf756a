# Pascal VOC 2012, 1464 training and 1449 validation images of its segmentation, 20 objects and background,
# brought to a short side of 512 and cropped to 512x512. Borders of objects, 255, are ignored.
# Total batch 16: 4 GPUs x 4 images.
dataset_type = "VOC2012Dataset"
data_root = "data/VOCdevkit/VOC2012"
prepare_command = "python tools/prepare_dataset.py voc2012 SOURCE"
num_classes = 21
crop_size = (512, 512)  # height, width
image_scale = (2048, 512)  # bounds of the long and the short side: the short one becomes 512
# Multiples of image_scale.
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
        ann_file="ImageSets/Segmentation/train.txt",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
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
        ann_file="ImageSets/Segmentation/val.txt",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="ExactIoUMetric", iou_metrics=["mIoU"], output_format="plain")
test_evaluator = val_evaluator
