"""Numbers as people read them."""

MINUTES_FROM, HOURS_FROM = 90, 5400  # seconds


def format_bytes(size: float) -> str:
    """Return a number of bytes in decimal units: '12.3 GB'."""
    return f"{size / 1e9:.1f} GB" if size > 1e9 else f"{size / 1e6:.1f} MB"


def format_seconds(seconds: float) -> str:
    """Return a duration, in the unit that suits it: '61 s', '2 min', '2.5 h'."""
    if seconds < MINUTES_FROM:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < HOURS_FROM else f"{seconds / 3600:.1f} h"


def format_measured(seconds: float) -> str:
    """Return a duration that was measured, not estimated: below an hour in two parts, '1 min 32 s'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if 0 < minutes < 60 else format_seconds(seconds)
