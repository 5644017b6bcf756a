"""Which number in a label file stands for which class, and the reading and writing of such files."""
