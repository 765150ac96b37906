"""Enhancing a short prompt to a detailed caption with a chat model. Spec skyreels_v2 section 11."""

from videogen.errors import VideoGenError
from videogen.prompts.chat import Chat
from videogen.tasks import config

MAX_TOKENS = 2048


def enhance(prompt: str, model: Chat, *, seed: int = 0) -> str:
    """Return a detailed caption in one line for a short prompt, sampled by the model's own config.

    Raises:
        VideoGenError: the model's reply is empty.
    """
    texts = config.read("prompts")
    messages = [
        {"role": "system", "content": texts["enhance_system"]},
        {"role": "user", "content": texts["enhance"].format(prompt=prompt.strip())},
    ]
    reply = model.reply(model.inputs(messages), max_new_tokens=MAX_TOKENS, temperature=None, seed=seed)
    caption = " ".join(reply.split())
    if not caption:
        raise VideoGenError(f"{model.found.label}: replied with nothing; try another seed")
    return caption
