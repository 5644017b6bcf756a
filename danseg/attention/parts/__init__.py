"""Parts that attention modules share: checks of arguments, scales, pooling, gates, views. Not for users."""
