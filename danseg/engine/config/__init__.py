"""Read a config, change it, and compare it with itself and with what exists, before it is built."""
