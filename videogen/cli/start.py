"""The commands as processes."""

from videogen.cli import early_interrupt  # noqa: F401 - first; listens from then on


def videos() -> None:
    """Make videos."""
    from videogen.cli.main import program  # noqa: PLC0415

    program()


def chain() -> None:
    """Make a chain of videos."""
    from videogen.cli.chain import program  # noqa: PLC0415

    program()
