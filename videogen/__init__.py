"""videogen: video generation with the Wan-family models and HunyuanVideo-I2V."""

__version__ = "0.1.0"
