"""Segment a picture with an exported network, by NumPy and ONNX Runtime alone: no danseg, no PyTorch.

python examples/onnx_inference.py network.onnx street.ppm labels.pgm
"""

import json
import re
import sys

import numpy as np
import onnxruntime


def read_picture(path: str) -> np.ndarray:
    """A PPM, which needs no decoder, as (H, W, 3) uint8, red first."""
    with open(path, "rb") as file:
        content = file.read()
    header = re.match(rb"P6(?:\s|#.*\n)+(\d+)(?:\s|#.*\n)+(\d+)(?:\s|#.*\n)+255\s", content)
    if not header:
        sys.exit(f"{path} is no PPM of 8 bits, as this makes one: ffmpeg -i {path} picture.ppm")
    width, height = map(int, header.groups())
    return np.frombuffer(content, np.uint8, height * width * 3, header.end()).reshape(height, width, 3)


def enlarged(logits: np.ndarray, size: tuple[int, ...], align_corners: bool) -> np.ndarray:
    """Logits (K, h, w) on the grid of the picture, as torch.nn.functional.interpolate makes them."""
    for axis, length in ((1, size[0]), (2, size[1])):
        cells, places = logits.shape[axis], np.arange(length)
        ends = places * (cells - 1) / max(1, length - 1)
        exact = ends if align_corners else np.clip((places + 0.5) * cells / length - 0.5, 0, cells - 1)
        low = exact.astype(int)
        share = np.expand_dims((exact - low).astype(np.float32), 2 - axis)
        near, far = logits.take(low, axis), logits.take(np.minimum(low + 1, cells - 1), axis)
        logits = near * (1 - share) + far * share
    return logits


def main(network: str, source: str, destination: str) -> None:
    session = onnxruntime.InferenceSession(network, providers=onnxruntime.get_available_providers())
    about = json.loads(session.get_modelmeta().custom_metadata_map["danseg"])
    taken, given = about["input"], about["output"]
    picture = read_picture(source)
    pixels = picture[..., ::-1] if taken["channels"] == "BGR" else picture
    if taken["mean"]:
        pixels = (pixels - np.float32(taken["mean"])) / np.float32(taken["std"])
    pixels = pixels.transpose(2, 0, 1) if taken["layout"] == "NCHW" else pixels
    [[output]] = session.run(None, {taken["name"]: np.ascontiguousarray(pixels[None], taken["dtype"])})
    if given["name"] == "logits":
        output = enlarged(output, picture.shape[:2], given["align_corners"])
        one = given["threshold"] is not None  # one channel, whose sigmoid is the probability of class 1
        output = 1 / (1 + np.exp(-output[0])) > given["threshold"] if one else output.argmax(0)
    with open(destination, "wb") as file:
        file.write(b"P5 %d %d 255\n" % output.shape[::-1] + output.astype(np.uint8).tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
