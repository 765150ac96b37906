"""The real checkpoints will load: our modules have exactly their names and shapes, at full size."""

import gzip
import json
from pathlib import Path

import pytest

from tests.conftest import GOLDEN
from videogen.errors import CheckpointError
from videogen.models.build import COMPONENTS, build_skeleton
from videogen.models.weights import Entry, rename

MANIFESTS = json.loads(gzip.decompress((GOLDEN / "manifests.json.gz").read_bytes()))
KINDS = {
    "transformer": ("SkyReels-V2", "transformer_14b", "dit_talking_avatar", "_expert", "ti2v_5b"),
    "vae": ("vae", "VAE"),
    "text_encoder": ("umt5",),
    "image_encoder": ("clip",),
}
# Other architectures: theirs are diffusers' and transformers' own classes, in later tasks.
OTHER = {
    name for name in MANIFESTS if name.startswith("hunyuan/") or "internvl" in name or "wav2vec2" in name
}
OURS = sorted(set(MANIFESTS) - OTHER)


def kind_of(name: str) -> str:
    (kind,) = [kind for kind, signs in KINDS.items() if any(sign in name for sign in signs)]
    return kind


def build(name: str, tensors: dict[str, list[int]]):
    kind = kind_of(name)

    def unread():
        raise AssertionError("a manifest has no weights")

    published = [Entry(key, tuple(shape), unread) for key, shape in tensors.items()]
    found = rename(Path(name), published, COMPONENTS[kind].tables)
    return build_skeleton(kind, Path(name), found, MANIFESTS[name]["config"])


def test_every_family_is_covered():
    assert {kind_of(name) for name in OURS} == set(KINDS)
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
