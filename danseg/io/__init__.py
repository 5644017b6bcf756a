"""Files that appear whole, pictures, the same work on many files; NumPy, OpenCV, rich, not torch or mmseg."""
