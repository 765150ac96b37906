"""A Plan: one video, fully decided before anything heavy is imported. Everything else about it is derived."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from videogen import files
from videogen.checkpoints import model_features
from videogen.checkpoints.layouts import Checkpoint
from videogen.distributed import Degrees
from videogen.errors import InputError
from videogen.media.download import display_name
from videogen.planning.memory_estimate import Memory, Video, estimate
from videogen.planning.option_rules import is_calibration
from videogen.planning.parallelism import choose_degrees
from videogen.prompts.chat import FoundModel
from videogen.prompts.roles import find_writers
from videogen.results import sidecar
from videogen.results.output_paths import OutputPaths
from videogen.results.resume_store import ResumeStore
from videogen.tasks.geometry import PATCH, Shape
from videogen.tasks.memory_model import Network
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.sizes import Inputs
from videogen.tasks.step_caches import KINDS, SCHEDULE, Ratios, ratios_name, read_cache, read_ratios
from videogen.tasks.task_spec import TaskSpec
from videogen.tasks.teacache_tables import Table, choose_table
from videogen.tasks.warnings import RATE_TOLERANCE

LISTED_ROLLS = 12
PROMPTS = ("prompt", "roll_prompts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """``options``: complete, with defaults; ``notes``: warnings for the user.

    ``written``: what models wrote in place of the prompt (see prompts/write.py).
    """

    task: TaskSpec
    options: Options
    shape: Shape
    checkpoint: Checkpoint
    inputs: Inputs
    notes: tuple[str, ...] = ()
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
        """What the pipeline's ``parts`` takes besides inputs, generator and callback."""
        return self.task.pick(self.options.but(**self.prompts), self.shape)

    @property
    def prompts(self) -> dict[str, Any]:
        """What takes the place of the prompt options."""
        return {name: self.written[name] for name in PROMPTS if name in self.written}

    @property
    def writers(self) -> dict[str, FoundModel]:
        """Models that write its prompt, by role.

        Raises:
            CheckpointError: one that is not a model of the right kind.
        """
        described = self.task.describes and self.options.prompt is None
        return find_writers(self.options, needed=("describer",) if described else ())

    @property
    def teacache_table(self) -> Table | None:
        """TeaCache's coefficients, where it is on.

        Raises:
            InputError: none are known for the model.
        """
        if not self.options.teacache:
            return None
        here = self.checkpoint.folder is not None
        found: dict[str, Any] = {"width": None, "image": False}
        found |= model_features.read_features(self.checkpoint) if here else {}
        model = str(self.options.model_id or self.task.default_model)
        if here and not self.checkpoint.revision and not self.checkpoint.tiny:
            model = str(Path(model).expanduser().absolute())  # "." has a name as well
        return choose_table(self.options.teacache_model, model, found["width"], found["image"])

    @property
    def degrees(self) -> Degrees:
        """How the ranks share it.

        Raises:
            InputError: they cannot.
        """
        _, _, _, height, width = self.shape.latent_shape
        return choose_degrees(
            self.options,
            branches=self.shape.forwards_per_step,
            heads=model_features.heads(self.checkpoint, self.task),
            tokens=(height // PATCH) * (width // PATCH),
        )

    @property
    def schedule(self) -> dict[str, Any]:
        """What MagCache's ratios depend on besides the weights: noise levels, branches, and LoRA."""
        known = {name: getattr(self.options, name) for name in SCHEDULE if self.task.uses(name)}
        known |= {"task": self.task.name, "branches": self.shape.forwards_per_step}
        return known | {"lora": [[_digest(lora.path), lora.scale, lora.expert] for lora in self.options.lora]}

    @property
    def ratios_file(self) -> Path | None:
        """Where MagCache's ratios are kept; None while the model is not on this machine."""
        weights = model_features.fingerprint(self.checkpoint)
        name = None if weights is None else ratios_name(weights, self.schedule)
        return None if name is None else files.cache_root() / "magcache" / name

    @property
    def mag_ratios(self) -> Ratios | None:
        """MagCache's ratios, where it is on and the model is here.

        Raises:
            InputError: none were measured.
        """
        name, threshold = read_cache(self.options.cache) if self.options.cache else ("", None)
        if threshold is None or not KINDS[name].calibrated or (file := self.ratios_file) is None:
            return None
        if (found := read_ratios(file)) is None:
            like = "steps, shift, solver, guidance, length and LoRA"
            what = f"was not measured for this model with these {like} on this machine"
            raise InputError("--cache", name, what, f"run once with --cache {name}:calibrate, which is exact")
        return found

    @property
    def _cache_values(self) -> dict[str, str]:
        """What stands for --teacache_model in records: the table it came to."""
        table = self.teacache_table
        return {"teacache_model": table.name} if table is not None else {}

    @property
    def memory(self) -> Memory:
        video = Video(
            shape=self.shape,
            dtype=self.options.dtype,
            vae_width=self.task.memory.vae_width(self.checkpoint.component_config("vae")),
            residuals=self._kept(self.checkpoint.component_config("transformer")),
            texts=min(2, self.shape.forwards_per_step),
            vae_dtype=self.options.vae_dtype,
            untiled=self.options.vae_tiling == "off",
            degrees=self.degrees,
        )
        parameters = model_features.parameters(self.checkpoint, self.task)
        return estimate(video, parameters, self._network(), self.task.memory.vae)

    @property
    def tiled(self) -> bool:
        """Whether a decode in tiles was asked for."""
        return self.options.vae_tiling == "on"

    def _network(self) -> Network:
        if self.checkpoint.folder is not None:
            found: Mapping[str, Any] = model_features.read_features(self.checkpoint)
        else:
            found = model_features.published(self.checkpoint.name, self.task)
        return self.task.memory.network(found)

    def _kept(self, dit: Mapping[str, Any]) -> int:
        """Token-sized tensors that a step cache keeps."""
        branches = self.shape.forwards_per_step
        if self.options.teacache:
            return max(2, branches)
        if self.options.cache is None:
            return 0
        kind = KINDS[read_cache(self.options.cache)[0]]
        return branches * (kind.kept + kind.per_output * self.task.memory.cached_outputs(dit))

    @property
    def _used(self) -> dict[str, Any]:
        """The options that the task uses, by name."""
        return {name: getattr(self.options, name) for name in OPTIONS if self.task.uses(name)}

    @property
    def request(self) -> dict[str, Any]:
        """The options as plain JSON without private paths: what ``--from_metadata`` reads back."""
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
        return {"task_type": self.task.name, "model_id": model, "seed": self.seed, **recorded}

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the result, as plain JSON: values of options, and content for files."""
        values = {**self._used, **self._cache_values}
        content = {
            "task": self.task.name,
            "weights": model_features.fingerprint(self.checkpoint),
            "seed": self.seed,
            "shape": [self.shape.height, self.shape.width, self.shape.num_frames],
            "rolls": [[roll.latent_frames, roll.num_frames] for roll in self.shape.rolls],
            "inputs": {name: [item.sha256 for item in items] for name, items in self.inputs.items()},
            "lora": self.schedule["lora"],
            **({"ratios": ratios} if (ratios := self.mag_ratios) is not None else {}),
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
        """The sidecar of a complete result of this plan; None if there is none.

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
        if self.writers:  # its prompt is still to be written
            was, now = ({k: v for k, v in request.items() if k not in PROMPTS} for request in (was, now))
        what = f"was made with {sidecar.differences(was, now)}"
        raise InputError("--resume", self.outputs.path, what, "use another name, or --overwrite")

    def fetched(self, checkpoint: Checkpoint) -> "Plan":
        """The same plan with its model on this machine."""
        return replace(self, checkpoint=checkpoint)

    def as_json(self) -> dict[str, Any]:
        """The plan for programs (--dry_run --json)."""
        shape, memory = self.shape, self.memory
        return {
            "task_type": self.task.name,
            "model": {
                "id": self.checkpoint.name,
                "revision": self.checkpoint.revision,
                "layout": self.checkpoint.layout,
                "present": self.checkpoint.folder is not None,
                "bytes": dict(self.checkpoint.sizes),
            },
            "request": self.request,
            "width": shape.width,
            "height": shape.height,
            "num_frames": shape.num_frames,
            "fps": shape.fps,
            "file": {
                "width": shape.file_size[0],
                "height": shape.file_size[1],
                "num_frames": shape.file_frames,
                "prepended": shape.prepended,
            },
            "seconds": round(shape.num_frames / shape.fps, 3),
            "rolls": [asdict(roll) for roll in shape.rolls],
            "latent_shape": list(shape.latent_shape),
            "tokens": shape.tokens,
            "ranks": asdict(self.degrees),
            "forwards": self.forwards,
            "memory_bytes": {
                "plain": memory.peak(tiled=self.tiled),
                "offload": memory.peak(offload=True, tiled=self.tiled),
                **({} if self.degrees.size > 1 else {"low_vram": memory.peak(low_vram=True)}),
            },
            "output": None if self.outputs is None else self.outputs.path.as_posix(),
            "plan_hash": self.plan_hash,
            "notes": list(self.notes),
        }

    def _file(self) -> str:
        """What the file holds, where that is more than what is made."""
        (source,), shape = self.inputs["input_video"], self.shape
        width, height = shape.file_size
        rate = self.options.source_fps
        how = f" (not {source.fps:g})" if abs(source.fps - shape.fps) > RATE_TOLERANCE else ""
        if rate is not None:
            how = f" (resampled from {rate or source.fps:g})"
        sound = ", with its sound" if self.options.keep_audio else ""
        return (
            f"{width}x{height}, {shape.file_frames} frames: {shape.prepended} of {source.name} "
            f"at {shape.fps} fps{how}{sound}, then the new ones"
        )

    def describe(self) -> str:
        """The plan for people (--dry_run)."""
        plan, shape, model = self.as_json(), self.shape, self.checkpoint
        where = "here" if model.folder else "to be built" if model.tiny else "to be downloaded"
        name = f"{model.name}@{model.revision}" if model.revision else model.name
        sizes = ", ".join(f"{part} {_amount(size)}" for part, size in model.sizes.items())
        skips = self.options.cache and not is_calibration(self.options.cache)
        steps = f"{self.forwards // shape.forwards_per_step} steps x {shape.forwards_per_step}"
        memory = ", ".join(f"{mode} {_amount(size)}" for mode, size in plan["memory_bytes"].items())
        rows = {
            "task": self.task.name,
            "model": f"{name} ({model.layout}, {where})",
            "files": sizes or ("tiny" if model.tiny else "sizes unknown until downloaded"),
            "video": f"{shape.width}x{shape.height}, {shape.num_frames} frames at {shape.fps} fps",
            **({"file": self._file()} if shape.prepended else {}),
            **({"rolls": _rolls(shape)} if len(shape.rolls) > 1 else {}),
            "latents": "x".join(map(str, shape.latent_shape)),
            "tokens": f"{shape.tokens} per forward",
            **({"ranks": _ranks(self.degrees)} if self.degrees.size > 1 else {}),
            "forwards": f"{self.forwards} ({steps})"
            + (", fewer with the cache" if self.teacache_table or skips else ""),
            "seed": str(self.seed),
            "memory": f"about {memory}" + (" on each GPU" if self.degrees.size > 1 else ""),
            "output": plan["output"] or "",
        }
        lines = [f"{name:<9} {value}" for name, value in rows.items()]
        return "\n".join([*lines, *(f"note      {note}" for note in self.notes)])


def _ranks(degrees: Degrees) -> str:
    ways = {"branches": degrees.cfg, "Ulysses": degrees.ulysses, "Ring": degrees.ring}
    return f"{degrees.size}: " + " x ".join(f"{name} {count}" for name, count in ways.items() if count > 1)


def _rolls(shape: Shape) -> str:
    """Frames of every roll; of many, the first and the last."""
    frames = [str(roll.num_frames or "0 (not shown)") for roll in shape.rolls]
    if len(frames) > LISTED_ROLLS:
        return f"{len(frames)} of {', '.join(frames[: LISTED_ROLLS - 2])}, ..., {frames[-1]} frames"
    return f"{', '.join(frames)} frames"


@cache
def _digest(path: Path) -> str:
    """Digest of a LoRA: of the file, or of the safetensors in its folder."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size > 1e9 else f"{size / 1e6:.1f} MB"
