"""Operators that the networks are built from, and their GPU kernels."""
