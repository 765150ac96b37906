"""Chains of videos: each goes on from the last frame of the one before."""

from videogen.cli.chain import program

if __name__ == "__main__":
    program()
