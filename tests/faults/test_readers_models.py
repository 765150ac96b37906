"""Configs of components and chat templates that say odd things: refused in one line, and soon."""

import json
import random
import shutil
import time

import pytest

from tests.conftest import GOLDEN
from tests.tiny_chat import tiny_chat_model
from videogen.errors import CheckpointError
from videogen.models.components import plan_component
from videogen.prompts.chat import Chat
from videogen.prompts.chat_models import find_model

R2V = GOLDEN / "skyreels_v3/checkpoint-r2v"
HUNYUAN = GOLDEN / "hunyuan/checkpoint-A"
COMPONENTS = {
    "transformer": R2V / "transformer",
    "vae": R2V / "vae",
    "text_encoder": R2V / "text_encoder",
    "llava": HUNYUAN / "text_encoder_i2v",
    "clip_text": HUNYUAN / "text_encoder_2",
}
ODD = (
    None,
    True,
    -1,
    0,
    10**7,
    10**30,
    1.5,
    float("inf"),
    "many",
    "",
    [],
    [1, -1],
    [[2]],
    {},
    {"a": 1},
    [1] * 10**4,
)
MUTANTS = 20


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPONENTS)
def test_odd_configs(tmp_path, name):
    folder = shutil.copytree(COMPONENTS[name], tmp_path / name)
    file = folder / "config.json"
    content = json.loads(file.read_text())
    inner = [content, *(value for value in content.values() if isinstance(value, dict))]
    rng = random.Random(name)
    for _ in range(MUTANTS):
        table = rng.choice([part for part in inner if part])
        key, value, started = rng.choice(list(table)), rng.choice(ODD), time.monotonic()
        before, table[key] = table[key], value
        file.write_text(json.dumps(content))
        table[key] = before
        try:
            plan_component(name, folder)
        except CheckpointError as error:
            assert len(str(error)) < 1000
        assert time.monotonic() - started < 10, (key, value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 10**7}, "num_layers is 10000000, its tensors allow 100"),
        ({"num_attention_heads": "many"}, "its config does not describe a transformer"),
        ({"text_dim": 10**9}, "text_dim is 1000000000"),
    ],
)
def test_counts_are_compared_before_anything_is_built(tmp_path, changes, message):
    folder = shutil.copytree(COMPONENTS["transformer"], tmp_path / "m")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=message):
        plan_component("transformer", folder)
    assert time.monotonic() - started < 3


TEMPLATES = {
    "{{ 1 / 0 }}": "division by zero",
    "{{ messages[99].a.b }}": "no element 99",
    "{% for": "does not take these messages",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "recursion",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "more than 1 s",
    "{{ [1] | map('nosuch') | list }}": "nosuch",
}


def test_odd_chat_templates(tmp_path, monkeypatch):
    monkeypatch.setattr("videogen.prompts.chat.TEMPLATE_SECONDS", 1)
    folder = tiny_chat_model(tmp_path / "m")
    with Chat(find_model("--prompt_enhancer", str(folder))) as chat:
        for template, message in TEMPLATES.items():
            chat.tokenizer.chat_template = template
            with pytest.raises(CheckpointError, match=message):
                chat.inputs([{"role": "user", "content": "hi"}])
