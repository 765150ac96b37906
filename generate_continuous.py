"""Chains of videos: each goes on from the last frame of the one before."""

from videogen.continuous import program

if __name__ == "__main__":
    program()
