"""The tasks, their options, sizes and defaults."""
