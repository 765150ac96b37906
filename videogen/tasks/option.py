"""What is true of one option: the row from which parser, help, checks, hashes and records are made."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

from videogen.errors import InputError, brief
from videogen.tasks.option_types import Reject, path, paths, prompts, split, word


class Needs(NamedTuple):
    """Another option that must be given too, and what is said where it is not."""

    option: str
    reason: str


@dataclass(frozen=True, slots=True)
class Option:
    """One flag with all that is true of it; ``parse`` is None for switches.

    Args:
        metavar: what stands for the value in the help text.
        aliases: further spellings.
        call_names: further names in Python calls, which are diffusers'.
        usual: most runs use it; the first page of help shows it.
        common: every task uses it; others are named by the rows of the tasks that do.
        chain: generate_continuous.py takes it, whether its tasks use it or not.
        chain_default: its value in a chain unless given, where that is another.
        set_by_chain: a chain decides it itself for each of its videos, and refuses it.
        about_run: it speaks about the whole run, not about one video; no job line or metadata file holds it.
        answers: what it prints is all there is to do.
        command_line_only: it must be known before files of options are read, and these may not say it.
        repeat: every occurrence counts.
        words: of the command line that the flag takes; each is one of its values.
        bare: the value of a flag that stands alone.
        default: its value unless given; tasks may have others (configs/*.yaml).
        hashed: its value changes the result, and is part of ``plan_hash`` unless it is the default, so that a
            new option changes no hash. Files are hashed by content.
        recorded: it says what to make, and belongs into the metadata of a result, as far as it is used. Other
            options are about this machine (folders, devices, patience), and never taken from metadata.
        record_as: its value -> what is recorded for it, where that is not the value.
        names_model: it names a model, by folder or hub id.
        names_weights: it says which weights are loaded, without naming a file or a model.
        by_name: a folder that is hashed and recorded by its own name, not by where it is.
        reloads: another value needs the model loaded again.
        in_schedule: it decides which noise levels the forwards see; MagCache's ratios depend on it.
        is_prompt: it is what the video shows; a model may write it instead.
        shows: with it a video needs no prompt of its own: it is one, or a model describes what it names.
        encoded: text encoders read it.
        writes_prompt: it says how a model writes the prompt; without effect where the prompt is there.
        needs: an option without which it is an error.
        excludes: options that it contradicts.
        instead_of: other ways of saying the same, which it silences in weaker sources.
        useless_without: an option without which it has no effect, for tasks that use both.
        useless_with: options beside which it has no effect.
        needs_guidance: it has no effect without text guidance.
        plan_row: line of --dry_run that says its value and where that comes from.
        names_device: its value is a kind of device, which must be on this machine.
        has_fields: {prompt}, {seed} or the name of any other option in it stands for that one's value.
        names_result: it names a file of one video, and several videos need {seed} or {index} in it.
        lists_sizes: its values are the size classes of the task.
        drawn: it is drawn unless given.
        sets_speed: it changes how long a step takes; a measured speed is for one value.
    """

    name: str
    parse: Callable[[str], object] | None
    help: str
    _: KW_ONLY
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    call_names: tuple[str, ...] = ()
    usual: bool = False
    common: bool = False
    chain: bool = False
    chain_default: object = None
    set_by_chain: bool = False
    about_run: bool = False
    answers: bool = False
    command_line_only: bool = False
    repeat: bool = False
    words: int = 1
    bare: str | None = None
    default: object = None
    hashed: bool = True
    recorded: bool = True
    record_as: Callable[[Any], object] | None = None
    names_model: bool = False
    names_weights: bool = False
    by_name: bool = False
    reloads: bool = False
    in_schedule: bool = False
    is_prompt: bool = False
    shows: bool = False
    encoded: bool = False
    writes_prompt: bool = False
    needs: Needs | None = None
    excludes: tuple[str, ...] = ()
    instead_of: tuple[str, ...] = ()
    useless_without: str | None = None
    useless_with: tuple[str, ...] = ()
    needs_guidance: bool = False
    plan_row: str = ""
    names_device: bool = False
    has_fields: bool = False
    names_result: bool = False
    lists_sizes: bool = False
    drawn: bool = False
    sets_speed: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    def value(self, given: object) -> Any:
        """Check and convert a value from any source (command line, YAML, JSON).

        Raises:
            InputError: the flag, what was given, what is allowed, and the nearest fix.
        """
        if self.parse is None:
            if isinstance(given, bool):
                return given
            raise InputError(self.flag, given, "is a switch", "give true or false")
        if self.bare is not None and isinstance(given, bool):
            return self._parsed(self.bare) if given else None
        if self.repeat:
            return tuple(
                self._parsed(item) for item in (given if isinstance(given, list | tuple) else [given])
            )
        return self._parsed(given)

    def record(self, value: object) -> object:
        """Return a value as the metadata of a result has it."""
        return value if self.record_as is None else self.record_as(value)

    def _parsed(self, given: object) -> object:
        assert self.parse is not None
        if isinstance(given, bool) and "on" in getattr(self.parse, "choices", ()):  # on and off in YAML
            given = "on" if given else "off"
        if given is None or isinstance(given, bool | Mapping):
            raise InputError(self.flag, given, "needs a value", "give one, or leave the flag out")
        try:
            split(given).encode()
            if self.parse in (paths, prompts) and isinstance(given, list | tuple):
                check = path if self.parse is paths else word
                return tuple(check(" ".join(str(item).split())) for item in given)
            return self.parse(split(given))
        except UnicodeEncodeError:
            raise InputError(self.flag, given, "is not UTF-8 text", "check the terminal's encoding") from None
        except Reject as verdict:
            raise InputError(self.flag, given, verdict.allowed, verdict.fix) from None


def row(parse: Callable[[str], object] | None, help: str, **facts: Any) -> Any:  # noqa: A002 - as it is called
    """Return the field of an option in a group of options; ``facts`` are those of ``Option``."""
    option = Option("", parse, help, **facts)
    return field(default=option.default, metadata={"option": option})


def switch(help: str, **facts: Any) -> Any:  # noqa: A002 - as it is called
    """Return the field of a flag without a value."""
    return row(None, help, **{"default": False, **facts})


def typed(value: object) -> str | None:
    """Return a value about as it was given; nothing for a switch."""
    if value is True:
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    return brief(split([f"{part:g}" if isinstance(part, float) else part for part in parts]))
