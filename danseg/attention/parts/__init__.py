"""Parts that attention modules share: checks of arguments, scales, pooling, gates. Not for users."""
