"""Write files whole, read and write images, work on many files in parallel. Needs no torch and no mmseg."""
