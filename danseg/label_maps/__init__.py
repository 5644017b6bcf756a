"""Label files: which number stands for which class, and how to read and write them."""
