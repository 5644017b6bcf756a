# A data set of one's own, as its dataset.yaml says (docs/own_data.md). --data FOLDER gives the names below
# the values that follow from the set; each can be set to another. Without --data, data_root says where it is.
dataset_type = "OwnDataset"
data_root = "data/mine"  # the folder of dataset.yaml, or the file
prepare_command = "python tools/prepare_dataset.py folder IMAGES MASKS --out data/mine"
num_classes = 2
crop_size = (512, 512)  # height, width
image_scale = None  # width, height that all images are fitted into first; None: each keeps its own size
batch_size = 4
num_workers = 2
test_split = "val"  # what tools/test.py scores
test_mode = "whole"  # or "slide": by windows of the crop's size
tta_ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # multiples of image_scale, or of each image's own size

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
    *([dict(type="Resize", scale=image_scale, keep_ratio=True)] if image_scale else []),
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
                if image_scale
                else dict(type="Resize", scale_factor=ratio, keep_ratio=True)
                for ratio in tta_ratios
            ],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,  # images may differ in size
    num_workers=num_workers,
    persistent_workers=num_workers > 0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, split="val", pipeline=test_pipeline),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(type=dataset_type, data_root=data_root, split=test_split, pipeline=test_pipeline),
)

val_evaluator = dict(type="ExactIoUMetric", iou_metrics=["mIoU"], output_format="plain")
test_evaluator = val_evaluator
