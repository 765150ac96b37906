"""What the network with an image beside the noise is trained on has the form that its pipelines give it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import videogen
from miniature import image_bank, world
from miniature.image_bank import FRAMES, KINDS, ImageClips
from miniature.train_image_dit import (
    BASE_BLOCKS,
    BATCH,
    SHARES,
    EncodedClips,
    choose,
    draw,
    encode_conditions,
    first_network,
    states_of_frames,
)
from videogen.diffusion.conditioning import pack
from videogen.media.audio import read_audio
from videogen.media.download import Fetcher
from videogen.models.wan.audio_encoder import audio_features, audio_windows
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.wan import MASK_CHANNELS, known_mask
from videogen.tasks.geometry import latent_frames

SIZE = 64, 96
FEATURES, WINDOWS = (17, 32), (FRAMES, 5, 2, 32)  # of an image; of a sound


@pytest.fixture(scope="module")
def load():
    """Load a pipeline of the miniature once."""
    loaded = {}

    def one(task):
        if task not in loaded:
            loaded[task] = videogen.load(task, model="miniature", dtype=torch.float32, device="cpu")
            loaded[task].set_progress_bar_config(disable=True)
        return loaded[task]

    return one


@pytest.mark.parametrize("name", KINDS)
def test_known_frames_are_encoded_as_the_pipeline_does(load, name):
    kind, pipeline = KINDS[name], load("image_to_video")
    video = torch.rand(kind.first + kind.last, *SIZE, 3) * 2 - 1
    first, last = video[: kind.first], video[kind.first :]
    ends = [part.movedim(-1, 0)[None] if len(part) else None for part in (first, last)]
    with torch.no_grad():
        expected = pipeline.encode_ends(ends[0], ends[1], kind.frames)
    made = image_bank.encode_known_frames(pipeline.vae, first, last, kind.frames).float()[None]
    assert torch.equal(made[:, :MASK_CHANNELS], expected[:, :MASK_CHANNELS])
    torch.testing.assert_close(made, expected, atol=0.1, rtol=0.02)  # the bank is bfloat16


def clips(name):
    """Return random clips of a kind."""
    frames = latent_frames(KINDS[name].frames)
    kind = KINDS[name]
    mask = known_mask(kind.first, kind.last, kind.frames, torch.device("cpu"))[None, :, :, None, None]
    latents = torch.randn(4, 16, frames, 8, 12)
    given = ImageClips(
        kind=name,
        video=latents.bfloat16(),
        beside=torch.cat([mask.expand(4, -1, -1, 8, 12), latents], dim=1).bfloat16(),
        cover=torch.ones(4, frames, 8, 12).bfloat16(),
        image=torch.zeros(4, *SIZE, 3, dtype=torch.uint8),
        captions=[["a red ball rises"]] * 4,
        sounds=[],
        starts=[],
    )
    windows = torch.randn(4, *WINDOWS) if kind.is_portrait else None
    return EncodedClips(given, torch.randn(4, *FEATURES), windows)


def form(latents, timestep, image, audio):
    """Return (channels, frames, whether they share a level, shapes of image and sound, known frames)."""
    mask = latents[0, 16 : 16 + MASK_CHANNELS, :, 0, 0].T.flatten().tolist()
    shapes = [None if given is None else tuple(given.shape[1:]) for given in (image, audio)]
    levels = timestep.reshape(len(latents), -1)
    return latents.shape[1:3], bool((levels == levels[:, :1]).all()), *shapes, mask


def trained(name):
    """Return the forms that a kind has in 30 draws."""
    found = []
    for seed in range(30):
        example = draw(clips(name), np.random.default_rng(seed))
        packed = pack(example.segments)
        found.append(form(packed.latents, packed.timestep, example.image, example.audio))
    return found


def given(pipeline, **options):
    """Return the forms that a pipeline gives its network, without repetitions."""
    forms = []

    def look(_module, _arguments, given):
        names = ("hidden_states", "timestep", "encoder_hidden_states_image", "encoder_hidden_states_audio")
        forms.append(form(*(given[name] for name in names)))

    hook = pipeline.transformer.register_forward_pre_hook(look, with_kwargs=True)
    pipeline("x", height=SIZE[0], width=SIZE[1], num_inference_steps=2, output_type="latent", **options)
    hook.remove()
    return [made for index, made in enumerate(forms) if made not in forms[:index]]


def test_training_and_image_to_video_agree(load):
    picture = Image.new("RGB", SIZE[::-1], "orange")
    pipeline = load("image_to_video")
    assert given(pipeline, input_image=picture)[0] in trained("image")
    both = given(pipeline, input_image=picture, end_image=picture)
    assert both[0] in trained("both_images")
    short = given(pipeline, input_image=picture, end_image=picture, num_frames=17)
    assert short[0] in trained("both_images_short")


def test_training_and_talking_avatar_agree(load, tmp_path):
    rng = np.random.default_rng(0)
    sound = world.voice(rng, world.draw_loudness(rng, 50))  # a hidden clip and three that are seen
    soundfile.write(tmp_path / "voice.wav", sound, world.RATE)
    picture = Image.new("RGB", SIZE[::-1], "orange")
    forms = given(load("talking_avatar"), input_image=picture, input_audio=str(tmp_path / "voice.wav"))
    kinds = ("portrait", "portrait_to_target", "portrait_goes_on")
    assert len(forms) == len(kinds)
    assert all(made in trained(kind) for made, kind in zip(forms, kinds, strict=True))


def test_every_kind_is_drawn():
    assert SHARES.keys() == KINDS.keys() == set(image_bank.FILES)
    assert sum(SHARES.values()) == pytest.approx(1)
    files, rng = [clips(name) for name in KINDS], np.random.default_rng(0)
    drawn = Counter(choose(files, rng).clips.kind for _ in range(1000))
    for name in KINDS:
        assert drawn[name] / 1000 == pytest.approx(SHARES[name], abs=0.05)
        example = draw(clips(name), rng)
        assert example.velocity.shape[0] == len(example.captions) == BATCH
        assert (example.audio is not None) == KINDS[name].is_portrait


def test_sounds_and_images_are_encoded_as_the_pipeline_does(load, tmp_path):
    pipeline, rng = load("talking_avatar"), np.random.default_rng(1)
    portrait, loudness = world.draw_portrait(rng), world.draw_loudness(rng, 50)
    face, sound = world.speak(portrait, loudness[:1], *SIZE)[0], world.voice(rng, loudness)
    picture = torch.from_numpy((face * 255).round().astype(np.uint8))
    drawn = replace(
        clips("portrait_goes_on").clips,
        image=picture[None],
        sounds=[torch.from_numpy(sound).half()],
        starts=[9],
    )
    encoded = encode_conditions(drawn, pipeline.image_encoder, pipeline.audio_encoder)
    soundfile.write(tmp_path / "voice.wav", sound, world.RATE, subtype="FLOAT")
    heard = pipeline.hear(
        read_audio("--input_audio", str(tmp_path / "voice.wav"), Fetcher(folder=tmp_path)), 50, 50
    )
    torch.testing.assert_close(encoded.audio, audio_windows(heard, 9, FRAMES), atol=0.05, rtol=0.05)
    with torch.no_grad():
        seen = pipeline.encode_clip(picture.movedim(-1, 0)[None].float() / 127.5 - 1)
    torch.testing.assert_close(encoded.image, seen)


def test_the_audio_encoder_is_trained_on_what_pipelines_compute(load):
    encoder, rng = load("talking_avatar").audio_encoder, np.random.default_rng(2)
    sound = world.voice(rng, world.draw_loudness(rng, 40))
    states = states_of_frames(encoder, sound, 40)
    assert states.shape == (40, *WINDOWS[2:])
    torch.testing.assert_close(states, audio_features(encoder, sound, 40), atol=1e-5, rtol=1e-4)


def test_a_portrait_jumps_only_from_its_picture():
    rng = np.random.default_rng(0)
    portrait, loudness = world.draw_portrait(rng), np.float32(0.5 + 0 * np.arange(FRAMES))
    steady = world.speak(portrait, loudness, *SIZE)
    jumps = {"portrait": 0, "portrait_goes_on": 0}
    for name in jumps:
        for _ in range(10):
            made, target = image_bank.draw_portrait_clip(rng, KINDS[name], portrait, loudness, SIZE)
            assert np.array_equal(made[1:], steady[1:])
            assert target.shape == (1, *SIZE, 3)
            jumps[name] += not np.array_equal(made[0], steady[0])
    assert jumps["portrait"] > 3
    assert jumps["portrait_goes_on"] == 0


def test_the_network_begins_with_blocks_of_the_first():
    sizes = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "text_dim": 96,
        "freq_dim": 32,
        "ffn_dim": 48,
    }
    base = WanDiT(**sizes, num_layers=6)
    dit = first_network(base)
    for own, block in zip(dit.blocks, BASE_BLOCKS, strict=True):
        assert torch.equal(own.ffn.net[0].proj.weight, base.blocks[block].ffn.net[0].proj.weight)
    assert not dit.patch_embedding.weight[:, 16:].any()
    assert torch.equal(dit.patch_embedding.weight[:, :16], base.patch_embedding.weight)
    for block in dit.blocks:
        assert not block.audio_cross_attn.proj.weight.any()
        assert not block.audio_cross_attn.proj.bias.any()
