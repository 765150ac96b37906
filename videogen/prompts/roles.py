"""The models that write a request's prompt, and their roles."""

from collections.abc import Collection

from videogen.prompts.chat_models import FRAMES_CHAT, TEXT_CHAT, VIDEO_CHAT, FoundModel, find_model
from videogen.tasks.options import Options

# Role -> the option that names its model, and what kind of model that is.
PROMPT_WRITERS = {
    "captioner": ("vlm_path", VIDEO_CHAT),
    "enhancer": ("prompt_enhancer", TEXT_CHAT),
    "describer": ("vlm_path", FRAMES_CHAT),
}


def find_prompt_writers(options: Options, *, needed: Collection[str] = ()) -> dict[str, FoundModel]:
    """Return the models that write a request's prompt, by role; often none.

    'captioner' and 'enhancer' follow from the options; ``needed`` adds roles, as 'describer' for v2v tasks.

    Raises:
        CheckpointError: one that is not a model of the right kind.
    """
    roles = {
        "captioner": bool(options.captioner),
        "enhancer": bool(options.captioner or options.prompt_enhancer),
        "describer": False,
    }
    found = {}
    for role, (option, kind) in PROMPT_WRITERS.items():
        if roles[role] or role in needed:
            flag = f"--{option}" if getattr(options, option) or role != "enhancer" else "--captioner"
            found[role] = find_model(flag, getattr(options, option) or kind.default, kind)
    return found
