"""Generate a video; see ``generate_video.py --help``."""

from videogen.cli.start import generate

if __name__ == "__main__":
    generate()
