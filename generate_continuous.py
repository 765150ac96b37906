"""Chains of videos: each goes on from the last frame of the one before."""

import sys

try:
    from videogen.cli.start import chain
except KeyboardInterrupt:  # early_interrupt.py hears it from then on
    sys.stderr.write("interrupted\n")
    sys.exit(130)

if __name__ == "__main__":
    chain()
