"""Devices: what processes do to the world, each a typed function with a contract."""
