"""Where the value of an option comes from, in a word or two, as the plan says it (docs/plan.md)."""

from enum import StrEnum


class Origin(StrEnum):
    """The source of a value."""

    FLAG = "flag"
    JOB_LIST = "job list"
    CONFIG = "config"
    METADATA = "metadata"
    ARGUMENT = "argument"
    PRESET = "preset"
    CHECKPOINT = "checkpoint"
    TASK_DEFAULT = "task default"
    DRAWN = "drawn"
