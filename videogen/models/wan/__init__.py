"""The Wan transformer, its VAE and its encoders."""
