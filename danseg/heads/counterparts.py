"""Which of mmseg's classes each of danseg's stands in for, with the same arguments, weights and outputs."""

HEADS = {
    "CCNetHead": "CCHead",
    "DANetHead": "DAHead",
    "DNLNetHead": "DNLHead",
    "FullyConvolutionalHead": "FCNHead",
    "GCNetHead": "GCHead",
    "ISANetHead": "ISAHead",
    "NonLocalHead": "NLHead",
    "PSANetHead": "PSAHead",
}
SEGMENTORS = {"LeanEncoderDecoder": "EncoderDecoder", "LeanTTAModel": "SegTTAModel"}
