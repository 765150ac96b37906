"""The features of the talking avatar's audio encoder, and its checkpoint."""

import gzip
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder

from tests.conftest import GOLDEN
from tests.sounds import CHIRP, SHORT, SILENCE, distance, read, tone
from videogen.checkpoints.networks.wan import TABLES
from videogen.errors import CheckpointError
from videogen.media.audio import waveform
from videogen.models.components import build_meta_module, load_component
from videogen.models.wan import audio_encoder
from videogen.models.wan.audio_encoder import audio_features, audio_windows, speech_steps
from videogen.models.weight_loader import Entry, rename

WAV2VEC = GOLDEN / "talking_avatar/checkpoint-A/chinese-wav2vec2-base"


@pytest.fixture(scope="module")
def encoder():
    return load_component("audio_encoder", WAV2VEC)


@pytest.mark.parametrize("name", [CHIRP, SILENCE, SHORT])
def test_features_as_published(golden, encoder, name):
    case = golden(name)
    audio, wanted = read(case.folder / "audio.wav"), case.outputs["audio_embedding"]
    assert audio.num_frames == len(wanted)
    features = audio_features(encoder, waveform(audio), audio.num_frames)
    assert features.dtype == torch.float32
    assert distance(features, wanted) <= 2e-4
    assert not encoder.feature_extractor._forward_hooks


def test_features_follow_the_sound(golden, encoder):
    """The tolerance would notice another sound."""
    wanted = golden(CHIRP).outputs["audio_embedding"]
    other = audio_features(encoder, tone(1.5), 38)
    assert distance(other, wanted) > 0.1


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_long_sounds_are_heard_in_stretches(monkeypatch, norm):
    """The seams leave no trace, and the layer that normalises over time knows the whole."""
    torch.manual_seed(0)
    shape = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2)}
    config = Wav2Vec2Config(**shape, feat_extract_norm=norm, num_feat_extract_layers=3)
    extractor = Wav2Vec2FeatureEncoder(config).eval()
    speech = torch.from_numpy(tone(1.3))[None] + 0.1
    with torch.no_grad():
        for layer in extractor.conv_layers:
            for parameter in layer.parameters():
                parameter.normal_()
        whole = extractor(speech)
        monkeypatch.setattr("videogen.models.wan.audio_encoder.STRETCH", 7)
        stretches = speech_steps(extractor.conv_layers, speech)
    assert stretches.shape == whole.shape
    assert distance(stretches, whole) <= 1e-5 * whole.abs().max()


def test_windows_as_published(golden):
    chirp, short = golden(CHIRP).outputs, golden(SHORT).outputs
    assert torch.equal(audio_windows(chirp["audio_embedding"], 10, 21), chirp["window"])
    # 29 frames from the 21 there are: the last is repeated.
    assert torch.equal(audio_windows(short["audio_embedding"], 0, 29), short["clip0.audio_window"])


def test_audio_tokens_as_published(golden):
    """What the published code picks from the windows is in them; the rest is anything."""
    case = golden("talking_avatar/audio_proj")
    first, latter = case.inputs["audio_first"], case.inputs["audio_latter"]
    windows = torch.randn(1, 1 + 4 * latter.shape[1], *first.shape[2:])
    windows[:, :1] = first
    windows[:, 1::4, :3], windows[:, 4::4, 2:] = latter[:, :, :3], latter[:, :, 5:]
    windows[:, 2::4, 2], windows[:, 3::4, 2] = latter[:, :, 3], latter[:, :, 4]
    projection = load_component("transformer", GOLDEN / "talking_avatar/checkpoint-A").audio_proj
    with torch.no_grad():
        assert distance(projection(windows), case.outputs["tokens"]) <= 1e-4


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(WAV2VEC, tmp_path / "wav2vec2"))


def edit(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_every_naming_gives_the_same_encoder(golden, folder, encoder):
    """Of old and new weight norm, with and without the pretraining model around it."""
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    renamed = {
        name.removeprefix("wav2vec2.")
        .replace("weight_g", "parametrizations.weight.original0")
        .replace("weight_v", "parametrizations.weight.original1"): tensor.contiguous()
        for name, tensor in tensors.items()
        if name.startswith("wav2vec2.") and not name.endswith("masked_spec_embed")
    }
    save_file(renamed, folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    other = load_component("audio_encoder", folder)
    ours, theirs = encoder.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_keeps_float32():
    module = load_component("audio_encoder", WAV2VEC, torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_the_preprocessor_is_honoured(folder, encoder):
    edit(folder / "preprocessor_config.json", do_normalize=False)
    plain = load_component("audio_encoder", folder)
    wave = tone(1)
    normal = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    assert distance(audio_features(plain, normal, 25), audio_features(encoder, wave, 25)) < 1e-4
    assert distance(audio_features(plain, wave, 25), audio_features(encoder, wave, 25)) > 0.01
    edit(folder / "preprocessor_config.json", sampling_rate=8000)
    with pytest.raises(CheckpointError, match="8000 Hz, not 16000"):
        load_component("audio_encoder", folder)


def test_without_configs_the_shapes_tell(folder, encoder):
    (folder / "preprocessor_config.json").unlink()
    (folder / "config.json").write_text('{"num_attention_heads": 2}')
    wave = tone(1)
    other = load_component("audio_encoder", folder)
    assert torch.equal(audio_features(other, wave, 25), audio_features(encoder, wave, 25))


def test_a_strange_checkpoint_is_refused(folder):
    file = folder / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    torch.save({**tensors, "surprise": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match="unexpected surprise"):
        load_component("audio_encoder", folder)
    tensors.pop("wav2vec2.encoder.layer_norm.bias")
    torch.save(tensors, file)
    with pytest.raises(CheckpointError, match=r"missing encoder.layer_norm.bias"):
        load_component("audio_encoder", folder)
    file.write_bytes(pickle.dumps({"code": Path.cwd}))
    with pytest.raises(CheckpointError, match=r"refused|broken"):
        load_component("audio_encoder", folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="no tensors at all"):
        load_component("audio_encoder", folder)


def test_the_published_names_and_shapes():
    manifests = json.loads(gzip.decompress((GOLDEN / "manifests.json.gz").read_bytes()))
    (name,) = [name for name in manifests if "wav2vec2" in name]
    published = [Entry(key, tuple(shape), torch.Tensor) for key, shape in manifests[name]["tensors"].items()]
    found = rename(Path(name), published, [TABLES["WAV2VEC2"]])
    module = build_meta_module("audio_encoder", Path(name), found, {})
    assert all(parameter.is_meta for parameter in module.parameters())
    assert module.config.num_hidden_layers == 12


def test_long_sound_goes_through_the_layers_in_stretches(encoder, monkeypatch):
    """No call sees more than the published limit; what is far from a seam is hardly changed."""
    wave = tone(12)
    whole = audio_features(encoder, wave, 300)
    monkeypatch.setattr(audio_encoder, "MAX_FRAMES", 200)
    monkeypatch.setattr(audio_encoder, "NEIGHBOURS", 50)
    parts = [*audio_encoder.stretches_of(300)]
    assert parts == [(0, 0, 100, 150), (50, 100, 200, 250), (150, 200, 300, 300)]
    assert max(high - low for low, _, _, high in parts) <= 200
    made = audio_features(encoder, wave, 300)
    assert made.shape == whole.shape
    assert (made - whole).abs().mean() < 0.25 * whole.std()  # random weights look everywhere
    assert not torch.equal(made, whole)
