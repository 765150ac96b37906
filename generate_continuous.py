"""Chains of videos: each goes on from the last frame of the one before."""

from videogen.cli.start import chain

if __name__ == "__main__":
    chain()
