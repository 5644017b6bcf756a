# FCN (no attention) with a ResNet-50-v1c on Pascal VOC 2012, crops of 512x512, tested on whole images.
# 40k iterations of 16 images (4 GPUs x 4).
# No figure is published for this recipe: those of the literature are for its 10582 augmented images.
_base_ = "./_base_/recipes/voc2012.py"

model = dict(decode_head=dict(type="FullyConvolutionalHead", num_convs=2, concat_input=True))
