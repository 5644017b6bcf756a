# PSANet with a dilated ResNet-18 of half width on a data set of one's own, trained from scratch:
#   python tools/train.py configs/psanet_r18_folder.py --data FOLDER_OF_DATASET_YAML
# Small enough for a computer without a GPU. No figure is published for this recipe.
_base_ = "./_base_/recipes/folder_r18.py"

model = dict(
    decode_head=dict(
        type="PSANetHead",
        mask_size=(65, 65),
        psa_type="bi-direction",
        compact=False,
        shrink_factor=2,
        normalization_factor=1.0,
        psa_softmax=True,
    )
)
