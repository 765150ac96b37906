"""What the DiT is trained on has the form that pipelines give it: frames, positions, which are known."""

import numpy as np
import pytest
import torch
from PIL import Image

import videogen
from miniature import bank
from miniature.denoising import ROWS
from miniature.text import word_tokenizer
from miniature.train_dit import BATCH, TASKS, Examples
from miniature.world import MOTION_WORDS, another_shot, describe, draw_scene
from videogen.diffusion.conditioning import pack

PICTURE = Image.new("RGB", (96, 64), "orange")
VIDEO = [PICTURE] * 25


def clips(frames):
    """Return a bank of random latents."""

    def latents(count):
        return torch.randn(4, 16, count, 8, 12).bfloat16()

    texts = [["a red ball rises"]] * 4
    cover = torch.ones(4, frames, 8, 12).bfloat16()
    return bank.Clips(
        video=latents(frames),
        reference=latents(1),
        shot=latents(3),
        ends=latents(2),
        cover=cover,
        captions=texts,
        unnamed=texts,
    )


def form(latents, timestep, positions):
    """Return (frames, positions, which frames are known) of an input of the network; its first example."""
    levels = timestep.reshape(len(latents), -1)[0].expand(latents.shape[2])
    return latents.shape[2], positions.tolist(), (levels == 0).tolist()


def trained(name, frames):
    """Return the forms that a training task has in 60 draws."""
    found = []
    for seed in range(60):
        example = getattr(Examples(clips(frames), np.random.default_rng(seed), 0.9), name)()
        packed = pack(example.segments)
        found.append(form(packed.latents, packed.timestep, packed.positions))
    return found


def given(task, **inputs):
    """Return the form that a pipeline gives its network in its first step."""
    pipeline = videogen.load(task, "tiny", dtype=torch.float32, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    forms = []

    def look(_module, _arguments, options):
        latents, timestep = options["hidden_states"], options["timestep"]
        positions = options["frame_positions"]
        forms.append(
            form(latents, timestep, torch.arange(latents.shape[2]) if positions is None else positions)
        )

    pipeline.transformer.register_forward_pre_hook(look, with_kwargs=True)
    pipeline("a red ball rises", height=32, width=48, num_inference_steps=2, output_type="latent", **inputs)
    return forms[0]


@pytest.mark.parametrize(
    ("task", "inputs", "name", "frames"),
    [
        ("text_to_video", {"num_frames": 33}, "video", 13),
        ("diffusion_forcing", {"num_frames": 33, "input_image": PICTURE}, "prefix", 13),
        (
            "diffusion_forcing",
            {"num_frames": 33, "input_image": PICTURE, "end_image": PICTURE},
            "end_image",
            13,
        ),
        ("reference_to_video", {"num_frames": 33, "ref_imgs": [PICTURE]}, "reference", 13),
        ("single_shot_extension", {"duration": 1, "input_video": VIDEO}, "prefix", 16),
        ("shot_switching_extension", {"duration": 2, "input_video": VIDEO}, "shot", 13),
    ],
)
def test_training_and_pipelines_agree(task, inputs, name, frames):
    assert given(task, **inputs) in trained(name, frames)


def test_every_task_can_be_drawn():
    for seed in range(30):
        for frames in (13, 16):
            example = Examples(clips(frames), np.random.default_rng(seed), seed / 30).draw()
            assert example.velocity.shape[0] == len(example.captions) == BATCH
            assert example.weight.sum() > 0
    assert [sum(share[kind] for share in TASKS.values()) for kind in (0, 1)] == pytest.approx([1, 1])


def test_captions_fit():
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng) for _ in range(300)]
    texts = [describe(scene, rng) for scene in scenes]
    texts += [describe(another_shot(scene, rng), rng, subject="the object") for scene in scenes]
    lengths = [len(ids) for ids in word_tokenizer()(texts).input_ids]
    assert max(lengths) < ROWS
    assert all(any(word in text for text in texts) for words in MOTION_WORDS.values() for word in words)
