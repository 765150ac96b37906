"""Names of HunyuanVideo's tensors, and of those of its VAE and text encoders."""

from videogen.checkpoints.key_maps import read_names

TABLES, NETWORK = read_names("hunyuan")
DIT = TABLES["DIT"]
