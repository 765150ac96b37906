"""From files to a configured pipeline, and from a plan to a finished video."""
