"""Chains of videos: each goes on from the last frame of the one before."""

import sys

from videogen.continuous import main

if __name__ == "__main__":
    sys.exit(main())
