"""Generate a video; see ``generate_video.py --help``."""

import sys

try:
    from videogen.cli.start import generate
except KeyboardInterrupt:  # start.py hears it from then on
    sys.stderr.write("interrupted\n")
    sys.exit(130)

if __name__ == "__main__":
    generate()
