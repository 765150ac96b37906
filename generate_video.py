"""Generate a video; see ``generate_video.py --help``."""

from videogen.cli.main import program

if __name__ == "__main__":
    program()
