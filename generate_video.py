"""Generate a video; see ``generate_video.py --help``."""

import sys

try:
    from videogen.cli.start import videos
except KeyboardInterrupt:  # early_interrupt.py hears it from then on
    sys.stderr.write("interrupted\n")
    sys.exit(130)

if __name__ == "__main__":
    videos()
