# danet_r18_camvid.py with PSANetHead in place of DANet's head and nothing else changed, trained from
# scratch in total batches of 8. No figure is published for this recipe.
_base_ = "./_base_/recipes/camvid.py"

model = dict(
    decode_head=dict(
        type="PSANetHead",
        mask_size=(23, 29),
        psa_type="bi-direction",
        compact=False,
        shrink_factor=2,
        normalization_factor=1.0,
        psa_softmax=True,
    )
)
