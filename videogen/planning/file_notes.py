"""What a user should know that only the files of a model tell: LoRAs and prompts that are used in part."""

from collections.abc import Iterator, Mapping

from videogen.checkpoints import lora as lora_files
from videogen.checkpoints import replacements
from videogen.checkpoints.layouts import Checkpoint, passed_over
from videogen.checkpoints.model_features import quantized
from videogen.checkpoints.replacements import EXPERTS
from videogen.prompts.length import cut_notes
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.task_spec import TRANSFORMERS, TaskSpec

PROMPTS = [option.name for option in OPTIONS.values() if option.encoded]


def file_notes(task: TaskSpec, options: Options, checkpoint: Checkpoint) -> Iterator[str]:
    """Yield warnings, one line each; none for a model that is not on this machine.

    Raises:
        CheckpointError: a LoRA that is not for this model.
    """
    if checkpoint.folder is None:
        return
    yield from passed_over(checkpoint)
    yield from replacements.notes(checkpoint)
    stored = quantized(checkpoint, task, None) if options.quantize else {}
    if any(weights.count for weights in stored.values()):
        yield f"--quantize {options.quantize}: what the model's files hold quantized stays as it is"
    for lora in options.lora:
        experts = TRANSFORMERS if lora.expert is None else (EXPERTS[lora.expert],)
        parts = [part for part in experts if part in checkpoint.components]
        if lora.path.exists() and (note := lora_files.check(lora.path, checkpoint, parts)):
            yield note
    yield from cut_notes(task.text, checkpoint, _texts(task, options, checkpoint))


def _texts(task: TaskSpec, options: Options, checkpoint: Checkpoint) -> Mapping[str, str]:
    """Return all texts that the text encoders read, each by what a message calls it.

    Published defaults are left out: they are nobody's words.
    """
    texts: dict[str, str] = {}
    published = task.defaults(checkpoint)
    for name in PROMPTS:
        given = getattr(options, name) if task.uses(name) else None
        if isinstance(given, tuple):
            texts |= {f"{OPTIONS[name].flag} line {line}": text for line, text in enumerate(given, start=1)}
        elif given and given != published.get(name):
            texts[OPTIONS[name].flag] = given
    rewritten = options.prompt_enhancer and not (options.input_image or options.end_image)
    if options.roll_prompts or rewritten:
        texts.pop(OPTIONS["prompt"].flag, None)
    first: dict[str, str] = {}  # a line that repeats another is said once
    for name, text in texts.items():
        first.setdefault(text, name)
    return {name: text for text, name in first.items()}
