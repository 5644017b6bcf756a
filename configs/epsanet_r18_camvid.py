# danet_r18_camvid.py with EPSANetHead in place of DANet's head and nothing else changed, trained from
# scratch in total batches of 8. No figure is published for this recipe.
_base_ = "./_base_/recipes/camvid.py"

model = dict(decode_head=dict(type="EPSANetHead", reduction=16))
