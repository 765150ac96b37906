"""A Plan: one video, fully decided before anything heavy is imported. Everything else about it is derived."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from videogen.checkpoints import model_features
from videogen.checkpoints.layouts import Checkpoint
from videogen.errors import InputError
from videogen.media.download import display_name
from videogen.planning.model_facts import ModelFacts, inspect_model
from videogen.prompts.chat_models import FoundModel
from videogen.results import sidecar
from videogen.results.output_paths import OutputPaths
from videogen.results.resume_store import ResumeStore
from videogen.tasks.geometry import Shape
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.sizes import Inputs
from videogen.tasks.task_spec import TaskSpec

PROMPTS = ("prompt", "roll_prompts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """``options``: complete, with defaults; ``warnings``: warnings for the user.

    ``facts``: what follows from the model's files. ``prompt_writers``: models that write its prompt, by role;
    ``written``: what they wrote in its place (see engine/prompt_writer.py).
    """

    task: TaskSpec
    options: Options
    shape: Shape
    checkpoint: Checkpoint
    inputs: Inputs
    facts: ModelFacts
    prompt_writers: Mapping[str, FoundModel] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seed: int = 0
    index: int = 1
    outputs: OutputPaths | None = None
    written: Mapping[str, Any] = field(default_factory=dict)

    @property
    def forwards(self) -> int:
        """Calls of the transformer."""
        steps = sum(roll.steps or self.options.num_inference_steps for roll in self.shape.rolls)
        return steps * self.shape.forwards_per_step

    @property
    def arguments(self) -> dict[str, Any]:
        """Return what the pipeline's ``parts`` takes besides inputs, generator and callback."""
        return self.task.pick(self.options.but(**self.prompts), self.shape)

    @property
    def prompts(self) -> dict[str, Any]:
        """Return what takes the place of the prompt options."""
        return {name: self.written[name] for name in PROMPTS if name in self.written}

    @property
    def _cache_values(self) -> dict[str, str]:
        """Return what stands for --teacache_model in records: the table it came to."""
        table = self.facts.teacache
        return {"teacache_model": table.name} if table is not None else {}

    @property
    def tiled(self) -> bool:
        """Return whether a decode in tiles was asked for."""
        return self.options.vae_tiling == "on"

    @property
    def _used(self) -> dict[str, Any]:
        """Return the options that the task uses, by name."""
        return {name: getattr(self.options, name) for name in OPTIONS if self.task.uses(name)}

    @property
    def request(self) -> dict[str, Any]:
        """Return the options as plain JSON without private paths: what ``--from_metadata`` reads back."""
        values = {**self._used, **self.prompts}
        if self.written:  # the prompt says it all
            values |= dict.fromkeys(("prompt_enhancer", "captioner", "custom_prompt"))
        values |= self._cache_values
        recorded = {
            name: value for name, value in values.items() if OPTIONS[name].recorded and value is not None
        }
        recorded |= {name: display_name(value) for name, value in recorded.items() if OPTIONS[name].by_name}
        recorded |= {name: [item.name for item in items] for name, items in self.inputs.items() if items}
        if loras := self.options.lora:
            recorded["lora"] = [
                ":".join([display_name(str(path)), str(scale), *([expert] if expert else [])])
                for path, scale, expert in loras
            ]
        model = self.checkpoint.name
        if self.checkpoint.folder is not None and not (self.checkpoint.revision or self.checkpoint.tiny):
            model = sidecar.LOCAL_MODEL + model
        if self.options.source_fps == 0:
            recorded["source_fps"] = "auto"
        if self.checkpoint.revision:  # the commit, so that the same files are found again
            recorded["revision"] = self.checkpoint.revision
        own = {"task_type": self.task.name, "model_id": model, "seed": self.seed}
        return own | recorded | own

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the result, as plain JSON: values of options, and content for files."""
        values = {**self._used, **self._cache_values}
        content = {
            "task": self.task.name,
            "weights": self.facts.fingerprint,
            "seed": self.seed,
            "shape": [self.shape.height, self.shape.width, self.shape.num_frames],
            "rolls": [[roll.latent_frames, roll.num_frames] for roll in self.shape.rolls],
            "inputs": {name: [item.sha256 for item in items] for name, items in self.inputs.items()},
            "lora": self.facts.schedule["lora"],
            **({"ratios": ratios} if (ratios := self.facts.ratios) is not None else {}),
            "values": {
                name: Path(value).name if OPTIONS[name].by_name else value
                for name, value in values.items()
                if OPTIONS[name].hashed and name not in self.inputs and value != OPTIONS[name].neutral
            },
        }
        return json.loads(json.dumps(content, default=str))

    @property
    def plan_hash(self) -> str | None:
        """Digest of ``identity``; None while the model is not on this machine."""
        identity = self.identity
        if identity["weights"] is None:
            return None
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def resume_store(self) -> ResumeStore:
        """Store of the finished segments while the video is unfinished."""
        assert self.outputs is not None
        return ResumeStore(self.outputs.resume_folder, self.plan_hash, self.request)

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

    def earlier_record(self) -> dict[str, Any] | None:
        """Return the sidecar of a complete result of this plan; None if there is none.

        Raises:
            InputError: the result is there, but another plan made it.
        """
        assert self.outputs is not None
        if not all(path.exists() for path in self.outputs.paths):
            return None
        record = sidecar.read_record(self.outputs.sidecar) or {}
        if record.get("plan_hash") == self.plan_hash:
            return record
        was, now = dict(record.get("request", {})), self.request
        if self.prompt_writers:  # its prompt is still to be written
            was, now = ({k: v for k, v in request.items() if k not in PROMPTS} for request in (was, now))
        what = f"was made with {sidecar.differences(was, now)}"
        raise InputError("--resume", self.outputs.path, what, "use another name, or --overwrite")

    def fetched(self, checkpoint: Checkpoint) -> "Plan":
        """Return the same plan with its model on this machine.

        Raises:
            CheckpointError, InputError: see ``inspect_model``.
        """
        options = self.options
        for name, value in self.task.fixed_options.items():
            if getattr(options, name) != value:
                what = f"the weights of {checkpoint.name} are {value}"
                raise InputError(OPTIONS[name].flag, getattr(options, name), what, f"nearest {value}")
        if self.task.requires and checkpoint.folder is not None:
            found = model_features.read_features(checkpoint).traits
            useless = [name for name, trait in self.task.requires.items() if not getattr(found, trait)]
            usual = self.task.defaults(checkpoint)
            for name in useless:
                if (given := getattr(options, name)) not in (None, usual.get(name)):
                    what = "this model has no embedding for it"
                    raise InputError(OPTIONS[name].flag, given, what, "leave it out")
            options = options.but(**dict.fromkeys(useless))
        facts = inspect_model(self.task, options, self.shape, checkpoint)
        return replace(self, checkpoint=checkpoint, options=options, facts=facts)
