# PSANet with a dilated ResNet-50-v1c on a data set of one's own, from weights of ImageNet:
#   python tools/train.py configs/psanet_r50_folder.py --data FOLDER_OF_DATASET_YAML
# For one GPU; the weights are downloaded once. No figure is published for this recipe.
_base_ = "./_base_/recipes/folder.py"

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
