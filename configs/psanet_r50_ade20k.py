# PSANet with a dilated ResNet-50-v1c on ADE20K, crops of 512x512, tested on whole images.
# 160k iterations of 16 images (4 GPUs x 4).
# Published: mIoU 41.67 at one scale, 42.95 at six scales with flips (mmsegmentation model zoo).
_base_ = "./_base_/recipes/ade20k.py"

model = dict(
    decode_head=dict(
        type="PSANetHead",
        mask_size=(66, 66),
        psa_type="bi-direction",
        compact=False,
        shrink_factor=2,
        normalization_factor=1.0,
        psa_softmax=True,
    )
)
