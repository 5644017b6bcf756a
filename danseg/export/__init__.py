"""Out of PyTorch: write a network as ONNX, OpenVINO, an exported program or TorchScript, and run such files.

The files need no danseg to run; :mod:`danseg.export.description` is what each says of itself.
"""
