"""The HunyuanVideo transformer, its VAE and its text encoders."""
