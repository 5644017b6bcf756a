# DNLNet with a dilated ResNet-50-v1c on Cityscapes, crops of 512x1024, tested on whole frames.
# 80k iterations of 8 images (4 GPUs x 2).
# Published: mIoU 79.33 at one scale, none at several (mmsegmentation model zoo).
_base_ = "./_base_/recipes/cityscapes_512x1024.py"

model = dict(
    decode_head=dict(
        type="DNLNetHead", reduction=2, use_scale=True, mode="embedded_gaussian", temperature=0.05
    )
)
