"""Use a trained model in a few calls: load it, make it fast, segment images, see where it looks.

Example::

    segmenter = Segmenter("configs/danet_r50_cityscapes.py", "best.pth")
    prediction = segmenter("street.png")      # or an array, a tensor, a PIL image, bytes, a list of them
    prediction.labels, prediction.areas(), prediction.overlay()

and in single steps::

    model = load_model("configs/danet_r50_cityscapes.py", "best.pth")
    model = prepare_for_inference(model, precision="bfloat16")       # or leave it out
    labels = predict(model, "street.png")                            # (H, W) class ids
    maps = attention_maps(model, "street.png", [(640, 400)])         # from pixel x=640, y=400
    heat = maps["decode_head.pam"].over_image()                      # (1, H, W)
    exploration = explore(model, "street.png")                       # one pass for any number of views
    predict_large(model, "aerial.tif", "labels.tif")                 # an image of any size, by tiles

``docs/api.md`` has more.
"""

from danseg.errors import require_mmseg

require_mmseg("danseg.apis")

from danseg.apis.attention_maps import attention_maps
from danseg.apis.attention_statistics import attention_statistics
from danseg.apis.class_activation import class_activation_map
from danseg.apis.exploration import AttentionEffect, Exploration, explore
from danseg.apis.large import predict_large
from danseg.apis.model import dataset_meta, load_model
from danseg.apis.predict import predict, read_picture
from danseg.apis.prediction import Area, Prediction
from danseg.apis.preparation import PRECISIONS, prepare_for_inference
from danseg.apis.segmenter import Segmenter

__all__ = [
    "PRECISIONS",
    "Area",
    "AttentionEffect",
    "Exploration",
    "Prediction",
    "Segmenter",
    "attention_maps",
    "attention_statistics",
    "class_activation_map",
    "dataset_meta",
    "explore",
    "load_model",
    "predict",
    "predict_large",
    "prepare_for_inference",
    "read_picture",
]
