# The rendered street scenes of the demo, with Cityscapes' layout, classes and file names. Frames of 256x512
# are resized to five eighths of their size. Total batch 4, one device. image_scale and crop_size determine
# how long a run takes.
dataset_type = "CityscapesDataset"
data_root = "data/demo"
prepare_command = "python tools/prepare_dataset.py demo"
num_classes = 19
crop_size = (160, 320)  # height, width: nearly whole frames, whose layout says much about the classes
image_scale = (320, 160)  # width, height, as the resizing transforms take it
# Multiples of image_scale: the network was trained at about that size, not at the frames' own.
tta_ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

train_pipeline = [
    dict(
        type="LoadTrainingCrop",
        scale=image_scale,
        ratio_range=(1.0, 1.25),
        crop_size=crop_size,
        cat_max_ratio=0.75,
        flip_prob=0.5,
    ),
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
    num_workers=1,
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
    num_workers=1,
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
