"""Weights of other projects, brought into danseg's names, and networks as files that others can use."""
