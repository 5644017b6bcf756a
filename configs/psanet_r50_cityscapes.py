# PSANet with a dilated ResNet-50-v1c on Cityscapes, crops of 769x769, tested by sliding windows.
# 80k iterations of 8 images (4 GPUs x 2).
# Published: mIoU 79.31 at one scale, 80.91 at six scales with flips (mmsegmentation model zoo).
_base_ = "./_base_/recipes/cityscapes.py"

model = dict(
    decode_head=dict(
        type="PSANetHead",
        mask_size=(97, 97),
        psa_type="bi-direction",
        compact=False,
        shrink_factor=2,
        normalization_factor=1.0,
        psa_softmax=True,
    )
)
