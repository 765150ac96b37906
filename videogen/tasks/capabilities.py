"""Compute capabilities from which NVIDIA's GPUs calculate in these types."""

BFLOAT16 = (8, 0)
FLOAT8 = (8, 9)
