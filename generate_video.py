"""Generate a video; see ``generate_video.py --help``."""

from videogen.cli.start import videos

if __name__ == "__main__":
    videos()
