"""What is decided about a video before anything heavy is imported; everything else about it is derived.

An ``Outline`` is what is known before its model is on this machine, a ``Plan`` all there is to know.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from videogen.checkpoints.layouts import Checkpoint
from videogen.errors import InputError
from videogen.planning.file_notes import file_notes
from videogen.planning.model_facts import (
    FileFacts,
    ModelFacts,
    model_facts,
    options_of_weights,
    read_files,
)
from videogen.planning.origins import Origin
from videogen.prompts.chat_models import FoundModel
from videogen.results import sidecar
from videogen.results.output_paths import OutputPaths
from videogen.results.resume_store import ResumeStore
from videogen.tasks.geometry import Shape
from videogen.tasks.option_types import Lora
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.sizes import Inputs
from videogen.tasks.task_spec import TaskSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """What is decided about a video whatever its seed and its output paths.

    Args:
        options: complete, with defaults.
        facts: what follows from options and model.
        prompt_writers: models that write its prompt, by role.
        warnings: for the user.
        origins: where the values of options come from, in a word; those that are not in it are the task's
            defaults.
    """

    task: TaskSpec
    options: Options
    shape: Shape
    checkpoint: Checkpoint
    inputs: Inputs
    facts: ModelFacts
    prompt_writers: Mapping[str, FoundModel]
    warnings: tuple[str, ...]
    origins: Mapping[str, Origin]

    def outline(self, *, seed: int, outputs: OutputPaths, **place: Any) -> "Outline":
        """Return one video of it; ``place`` is where in the run it stands (index, videos, label)."""
        return Outline(**_fields(self, Draft), seed=seed, outputs=outputs, **place)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline(Draft):
    """One video, as far as it is decided without the files of its model.

    Args:
        index: of the video in the list, from 1.
        videos: how many the list has, those that other runs make included.
        label: what messages call its place in a --jobs file.
        written: what its ``prompt_writers`` wrote in place of the prompt (see engine/prompt_writer.py).
    """

    seed: int
    index: int
    outputs: OutputPaths
    videos: int = 1
    label: str = ""
    written: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        """Denoising steps of all segments."""
        return sum(roll.steps or self.options.num_inference_steps for roll in self.shape.rolls)

    @property
    def forwards(self) -> int:
        """Calls of the transformer."""
        return self.num_steps * self.shape.forwards_per_step

    @property
    def arguments(self) -> dict[str, object]:
        """Return what the pipeline's ``parts`` takes besides inputs, generator and callback."""
        return self.task.pick(self.options.replace(**self._written_prompts), self.shape)

    @property
    def tiled(self) -> bool:
        """Return whether a decode in tiles was asked for."""
        return self.options.vae_tiling == "on"

    @property
    def memory_mode(self) -> str:
        """Return 'plain', 'offload' or 'low_vram'."""
        return "low_vram" if self.options.low_vram else "offload" if self.options.offload else "plain"

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Bytes on the device at the peak, by memory mode; of several ranks none streams blocks."""
        peak = self.facts.memory.peak
        modes = {"plain": peak(tiled=self.tiled), "offload": peak(offload=True, tiled=self.tiled)}
        return modes if self.facts.degrees.size > 1 else modes | {"low_vram": peak(low_vram=True)}

    def ram_bytes(self, *, on_cpu: bool) -> int:
        """Return the bytes of RAM, of a GPU those besides its own."""
        options = self.options
        return self.facts.memory.ram(on_cpu=on_cpu, offload=options.offload, low_vram=options.low_vram)

    @property
    def notes_of_written(self) -> list[str]:
        """Return the warnings about the prompts that models wrote."""
        options = self.options.replace(**self._written_prompts, prompt_enhancer=None)
        return [note for note in file_notes(self.task, options, self.checkpoint) if note not in self.warnings]

    @property
    def _written_prompts(self) -> dict[str, object]:
        """Return what takes the place of the prompt options."""
        return {name: text for name, text in self.written.items() if _is_prompt(name)}

    @property
    def _used(self) -> dict[str, object]:
        """Return the options that the task uses, by name; of TeaCache the table that it came to."""
        used = {name: getattr(self.options, name) for name in OPTIONS if self.task.uses(name)}
        table = self.facts.teacache
        return used if table is None else used | {"teacache_model": table.name}

    @property
    def request(self) -> dict[str, object]:
        """Return the options as plain JSON without private paths: what ``--from_metadata`` reads back."""
        values = {**self._used, **self._written_prompts}
        recorded = {
            name: OPTIONS[name].record(value)
            for name, value in values.items()
            if value is not None
            and OPTIONS[name].recorded
            and not (self.written and OPTIONS[name].writes_prompt)  # the prompt says it all
        }
        recorded |= {name: [item.name for item in items] for name, items in self.inputs.items() if items}
        model, revision = self.checkpoint.name, self.checkpoint.revision
        if self.checkpoint.folder is not None and not (revision or self.checkpoint.tiny):
            model = sidecar.LOCAL_MODEL + model
        if revision:  # the commit, so that the same files are found again
            recorded["revision"] = revision
        own = {"task_type": self.task.name, "model_id": model, "seed": self.seed}
        return own | recorded | own

    @property
    def identity(self) -> dict[str, Any]:
        """Return what determines the result besides the weights, as plain JSON; files by their content."""
        shape, inputs = self.shape, self.inputs
        content = {
            "task": self.task.name,
            "seed": self.seed,
            "shape": [shape.height, shape.width, shape.num_frames],
            "rolls": [[roll.latent_frames, roll.num_frames] for roll in shape.rolls],
            "inputs": {name: [item.sha256 for item in items] for name, items in inputs.items()},
            "lora": self.facts.schedule["lora"],
            "values": {
                name: Path(str(value)).name if OPTIONS[name].by_name else value
                for name, value in self._used.items()
                if OPTIONS[name].hashed and name not in inputs and value != OPTIONS[name].default
            },
        }
        return json.loads(json.dumps(content, default=str))

    @property
    def resume_store(self) -> ResumeStore:
        """Store of the finished segments while the video is unfinished; whose they are is not known yet."""
        return ResumeStore(self.outputs.resume_folder, None, self.request)

    @property
    def audio(self) -> tuple[Path, float, float] | None:
        """Sound that goes with the video: file, first second, number of seconds."""
        if "input_audio" in self.inputs:
            (sound,) = self.inputs["input_audio"]
            return sound.path, sound.start, self.shape.num_frames / self.shape.fps
        if not self.options.keep_audio:
            return None
        (source,) = self.inputs["input_video"]
        return source.path, source.start, self.shape.prepended / self.shape.fps

    def with_prompt_of(self, request: Mapping[str, object]) -> Self:
        """Return the same with the prompt of an earlier request for it."""
        return replace(self, written={name: text for name, text in request.items() if _is_prompt(name)})

    def with_files(self, files: FileFacts) -> "Plan":
        """Return the plan, with what the files of its model say."""
        return Plan(**_fields(self, Outline), files=files)

    def fetched(self, checkpoint: Checkpoint, loras: tuple[Lora, ...] | None = None) -> "Plan":
        """Return the plan, with its model and its LoRAs on this machine now.

        Raises:
            CheckpointError, InputError: a model that the options do not fit.
        """
        usual, options = self.task.defaults(checkpoint), self.options
        asked = {
            name: value
            for name in (*self.task.fixed_options, *self.task.requires)
            if (value := getattr(options, name)) not in (None, usual.get(name))
        }
        options = options.replace(lora=self.options.lora if loras is None else loras)
        options = options.replace(**options_of_weights(self.task, checkpoint, asked))
        facts = model_facts(self.task, options, self.shape, checkpoint)
        notes = dict.fromkeys([*self.warnings, *file_notes(self.task, options, checkpoint)])
        outline = replace(self, checkpoint=checkpoint, options=options, facts=facts, warnings=tuple(notes))
        return outline.with_files(read_files(options, facts, checkpoint))


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan(Outline):
    """One video, fully decided: its model is on this machine.

    Args:
        files: what the files of its model say.
    """

    files: FileFacts

    @property
    def identity(self) -> dict[str, Any]:
        """Return all that determines the result."""
        ratios = {} if self.files.ratios is None else {"ratios": self.files.ratios}
        return {**super(Plan, self).identity, "weights": self.files.fingerprint, **ratios}

    @property
    def plan_hash(self) -> str:
        """Digest of ``identity``."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def resume_store(self) -> ResumeStore:
        """Store of the finished segments while the video is unfinished."""
        return ResumeStore(self.outputs.resume_folder, self.plan_hash, self.request)

    def earlier_record(self) -> dict[str, Any] | None:
        """Return the sidecar of a complete result of this plan; None if there is none.

        Raises:
            InputError: the result is there, but another plan made it.
        """
        if not all(path.exists() for path in self.outputs.paths):
            return None
        record = sidecar.read_record(self.outputs.sidecar) or {}
        if record.get("plan_hash") == self.plan_hash:
            return record
        if self.resume_store.num_finished():  # a run of this plan with --overwrite was interrupted
            return None
        was, now = dict(record.get("request", {})), self.request
        if self.prompt_writers:  # its prompt is still to be written
            was, now = (
                {name: value for name, value in request.items() if not _is_prompt(name)}
                for request in (was, now)
            )
        what = f"was made with {sidecar.differences(was, now)}"
        raise InputError("--resume", self.outputs.path, what, "use another name, or --overwrite")

    def without_files(self) -> Outline:
        """Return what is known of it on a machine without its model."""
        return replace(Outline(**_fields(self, Outline)), checkpoint=replace(self.checkpoint, folder=None))


def _is_prompt(name: str) -> bool:
    return name in OPTIONS and OPTIONS[name].is_prompt


def _fields(video: Draft, of: type[Draft]) -> dict[str, Any]:
    """Return the values of the fields that a kind of draft has."""
    return {each.name: getattr(video, each.name) for each in fields(of)}
