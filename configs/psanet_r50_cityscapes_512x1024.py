# PSANet with a dilated ResNet-50-v1c on Cityscapes, crops of 512x1024, tested on whole frames.
# 80k iterations of 8 images (4 GPUs x 2).
# Published: mIoU 77.24 at one scale, 78.69 at six scales with flips (mmsegmentation model zoo).
_base_ = "./_base_/recipes/cityscapes_512x1024.py"

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
