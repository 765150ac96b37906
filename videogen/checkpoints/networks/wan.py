"""Names of Wan's tensors, and of those of the encoders beside it."""

from videogen.checkpoints.key_maps import read_names

TABLES, NETWORK = read_names("wan")
