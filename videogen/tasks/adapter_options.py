"""Options that change the weights of a model: LoRAs, and presets, which bring LoRAs and their sampling."""

from dataclasses import dataclass

from videogen.tasks import option_types as types
from videogen.tasks.option import row


# fmt: off
@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Adapters:
    """Weights beside those of the model."""

    preset: str | None = row(types.word,
        "set LoRAs, solver, steps, guidance and shift that belong together, as far as they are not given; "
        "lightning: four steps, with two experts (configs/presets.yaml)",
        metavar="NAME", common=True, hashed=False, names_weights=True)  # what it sets is hashed
    lora: tuple[types.Lora, ...] = row(types.lora, "LoRA weights, repeatable",
        metavar="PATH|URL|OWNER/REPO:FILE[:scale[:high|low]]", common=True, repeat=True, default=(),
        hashed=False, reloads=True, record_as=types.recorded_files)
# fmt: on
