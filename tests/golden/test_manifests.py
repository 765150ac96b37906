"""The real checkpoints will load: our modules have exactly their names and shapes, at full size."""

from pathlib import Path

import pytest

from tests.manifests import CONFIGS, MANIFESTS
from videogen.checkpoints import completeness
from videogen.errors import CheckpointError
from videogen.models.components import COMPONENTS, build_meta_module
from videogen.models.weight_loader import Entry, rename

KINDS = {
    "transformer": ("SkyReels-V2", "transformer_14b", "dit_talking_avatar", "_expert", "ti2v_5b"),
    "vae": ("vae", "VAE"),
    "text_encoder": ("umt5",),
    "image_encoder": ("clip-xlm", "clip_xlm"),
}
HUNYUAN_KINDS = {
    "hunyuan_transformer": ("dit_i2v",),
    "hunyuan_vae": ("vae",),
    "llava": ("llava",),
    "clip_text": ("clip",),
}
# Classes of transformers, read by transformers; and one that test_audio.py builds.
OTHER = {name for name in MANIFESTS if "internvl" in name or "wav2vec2" in name}
OURS = sorted(set(MANIFESTS) - OTHER)


def kind_of(name: str) -> str:
    kinds = HUNYUAN_KINDS if name.startswith("hunyuan/") else KINDS
    (kind,) = [kind for kind, signs in kinds.items() if any(sign in name for sign in signs)]
    return kind


def build(name: str, tensors: dict[str, list[int]]):
    kind = kind_of(name)

    def unread():
        raise AssertionError("a manifest has no weights")

    published = [Entry(key, tuple(shape), unread) for key, shape in tensors.items()]
    found = rename(Path(name), published, COMPONENTS[kind].tables)
    return build_meta_module(kind, Path(name), found, CONFIGS.get(kind, MANIFESTS[name]["config"]))


def test_every_family_is_covered():
    assert {kind_of(name) for name in OURS} == {*KINDS, *HUNYUAN_KINDS}
    assert len(OURS) >= 20


@pytest.mark.parametrize("name", OURS)
def test_names_and_shapes(name):
    module = build(name, MANIFESTS[name]["tensors"])
    assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize("name", ["skyreels_v3/r2v_transformer_14b.json", "wan22/wan2_2_vae.json"])
def test_one_name_too_few_or_too_many_is_refused(name):
    tensors = MANIFESTS[name]["tensors"]
    victim = next(key for key in tensors if key.endswith("attn1.to_k.weight") or "middle.1.proj" in key)
    with pytest.raises(CheckpointError, match="missing"):
        build(name, {key: shape for key, shape in tensors.items() if key != victim})
    with pytest.raises(CheckpointError, match="unexpected surprise"):
        build(name, {**tensors, "surprise.weight": [1]})
    with pytest.raises(CheckpointError, match="expected"):
        build(name, {**tensors, victim: [7, *tensors[victim][1:]]})


@pytest.mark.parametrize("name", OURS)
def test_published_tensors_fit_together(name):
    shapes = {key: tuple(shape) for key, shape in MANIFESTS[name]["tensors"].items()}
    assert [*completeness._different_blocks(shapes), *completeness._odd_biases(shapes)] == []
