"""Generate a video; see ``generate_video.py --help``."""

import sys

from videogen.cli import main

if __name__ == "__main__":
    sys.exit(main())
