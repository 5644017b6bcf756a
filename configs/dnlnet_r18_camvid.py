# danet_r18_camvid.py with DNLNetHead in place of DANet's head and nothing else changed, trained from
# scratch in total batches of 8. No figure is published for this recipe.
_base_ = "./_base_/recipes/camvid.py"

model = dict(
    decode_head=dict(
        type="DNLNetHead", reduction=2, use_scale=True, mode="embedded_gaussian", temperature=0.05
    )
)
