"""Files that appear whole, pictures, the same work on many files: no torch, no mmseg."""
