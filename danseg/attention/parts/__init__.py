"""What the attention modules are made of: arguments' checks, scales, pools, gates. Not for users."""
