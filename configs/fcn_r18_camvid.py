# The baseline without attention: danet_r18_camvid.py with an FCN head in place of DANet's and nothing else
# changed, trained from scratch in total batches of 8. No figure is published for this recipe.
# Its convolutions weigh what those of DANet's two branches weigh, so that attention is the difference.
_base_ = "./_base_/recipes/camvid.py"

model = dict(decode_head=dict(type="FullyConvolutionalHead", num_convs=2, concat_input=True))
