"""Enhancing a short prompt to a detailed caption with a chat model. Spec skyreels_v2 section 11."""

from videogen.errors import VideoGenError
from videogen.prompts.chat import Chat

MAX_TOKENS = 2048
SYSTEM = "You are a helpful assistant that answers carefully and to the point."
REQUEST = """\
Below is a short idea for a video. Expand it into one detailed English caption, a single flowing paragraph \
that a video generation model can follow. Keep everything the idea says, and tell in this order:

1. the shot size, first of all (close-up, medium shot, full shot, long shot ...);
2. every subject, with vivid attributes: age, build, clothing, colours, materials, expression;
3. what moves or changes over time, from the beginning of the video to its end;
4. the scene, and where its parts are in relation to each other;
5. the light and the atmosphere;
6. how the camera moves, if it does.

If the subject itself is static, add a camera movement, so that something happens in the video.

An example.
Idea: [a boy plays football]
Caption: A full shot shows a lanky boy of about ten with curly black hair, in a mud-splashed orange jersey \
and white shorts, on a rain-soaked football pitch. He nudges a scuffed ball past an outstretched leg, \
stumbles, catches himself and strikes it with his left foot; the ball skids through a puddle, throws up a \
fan of water and rolls over the line just beyond the diving goalkeeper, and the boy flings up both arms, \
laughing. The goal stands to the right, its net sagging, while behind it a row of parents under umbrellas \
lines the fence. Low evening sun breaks through grey clouds and makes the wet grass glitter, and the mood \
is exuberant. The camera follows the boy from the side and slows to a halt as he celebrates.

Idea: [{prompt}]
Output only the caption, with no heading, quotation marks or remarks."""


def enhance(prompt: str, model: Chat, *, seed: int = 0) -> str:
    """Return a detailed caption in one line for a short prompt, sampled by the model's own config.

    Raises:
        VideoGenError: the model's reply is empty.
    """
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": REQUEST.format(prompt=prompt.strip())},
    ]
    reply = model.reply(messages, max_new_tokens=MAX_TOKENS, temperature=None, seed=seed)
    caption = " ".join(reply.split())
    if not caption:
        raise VideoGenError(f"{model.found.label}: replied with nothing; try another seed")
    return caption
