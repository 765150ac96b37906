"""Model files: their layouts, how they are found, and the names of the tensors in them."""
