"""Files that appear whole, pictures, the same work on many files; NumPy, OpenCV, Pillow, rich; no torch or mmseg."""
