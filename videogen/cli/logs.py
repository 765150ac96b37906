"""What is said on stderr, and how much of it."""

import logging

from videogen.tasks.options import RunSettings

logger = logging.getLogger("videogen")


class _Lines(logging.Formatter):
    """'warning: text' for what needs attention, bare text for the rest."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def set_up_logging(settings: RunSettings) -> None:
    """Our messages on stderr; --quiet leaves errors, -v adds detail."""
    handler = logging.StreamHandler()  # on what stderr is now
    handler.setFormatter(_Lines("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR if settings.quiet else logging.DEBUG if settings.verbose else logging.INFO)
