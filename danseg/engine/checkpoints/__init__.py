"""Read checkpoints and weights: whole, without running code from them, and only where they fit."""
