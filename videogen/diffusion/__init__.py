"""Sampling, guidance and conditioning: numbers and tensors, no networks."""
