"""From what was asked to everything that is decided before weights are read."""
