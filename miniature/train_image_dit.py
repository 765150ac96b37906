"""Train the network with an image beside the noise: ``python -m miniature.train_image_dit --out FOLDER``.

One network begins videos with an image, ends them with another, and lets portraits speak. It begins with some
blocks of the miniature's first network; VAE and text encoder are the miniature's. The image encoder keeps its
random weights; the audio encoder learns to hear how loud a voice is. The same command goes on where a run has
stopped. ``OUT/model`` holds what belongs in ``with_image`` of a model folder.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    CLIPVisionModel,
    UMT5EncoderModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from miniature import bank, image_bank, world
from miniature.denoising import SHAPE, Example, add_noise, draw_caption, levels, loss_of, prepare
from miniature.image_bank import FRAMES, KINDS, ImageClips
from miniature.training import Trainer
from videogen.media.audio import normalized
from videogen.models import tiny
from videogen.models.wan.audio_encoder import audio_features, audio_windows
from videogen.models.wan.components import COMPONENTS, UNMASKED
from videogen.models.wan.image_encoder import clip_features
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.wan import MASK_CHANNELS
from videogen.tasks import config
from videogen.tasks.geometry import latent_frames

IMAGE_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "hidden_act": "gelu",
}
AUDIO_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "conv_dim": [24] * 7,
    "conv_bias": True,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "do_normalize": True,
}
BASE_BLOCKS = (0, 4, 5)  # of the first network
IMAGE_AND_AUDIO = {  # config of this network that the first has not
    "num_layers": len(BASE_BLOCKS),
    "in_channels": 36,
    "image_dim": 32,
    "audio_dim": 32,
    "audio_features": 2 * 32,
    "audio_hidden_dim": 64,
    "audio_tokens": 4,
}
NEW_PARTS = re.compile(r"condition_embedder\.image_embedder|audio_proj|audio_cross_attn|norm_x")
BATCH = 16
SHARES = {
    "image": 0.48,
    "both_images": 0.10,
    "both_images_short": 0.07,
    "portrait": 0.12,
    "portrait_to_target": 0.10,
    "portrait_goes_on": 0.13,
}
LENGTHS = {5: 0.25, 7: 0.15, 9: 0.6}  # latent frames of videos that begin with an image
MOST_NOISE = 0.15  # on known latents of portraits: the pipeline gives frames that the network has made
DROPPED = 0.12  # of captions, and of sounds, for classifier-free guidance
AUDIO_STEPS, AUDIO_BATCH = 600, 4  # of the audio encoder's training


@dataclass(frozen=True, slots=True)
class EncodedClips:
    """Clips of one kind and size, and what the encoders make of their images and sounds.

    Args:
        image: features of the first image [N, I, image_dim].
        audio: windows of a portrait's sound [N, 33, 5, layers, channels]; None for scenes.
    """

    clips: ImageClips
    image: Tensor
    audio: Tensor | None


def encode_conditions(
    clips: ImageClips, image_encoder: CLIPVisionModel, audio_encoder: Wav2Vec2Model
) -> EncodedClips:
    """Encode the images and sounds of clips as the pipelines do."""
    pixels = clips.image.movedim(-1, 1).float() / 127.5 - 1
    windows = []
    for sound, start in zip(clips.sounds, clips.starts, strict=True):
        rows = len(sound) * world.FPS // world.RATE
        heard = audio_features(audio_encoder, normalized(sound.float().numpy()), rows)
        windows.append(audio_windows(heard, start, FRAMES)[0])
    with torch.no_grad():
        features = torch.cat([clip_features(image_encoder, part) for part in pixels.split(50)])
    return EncodedClips(clips, features, torch.stack(windows) if windows else None)


def draw(encoded: EncodedClips, rng: np.random.Generator) -> Example:
    """Draw a batch of one kind and size."""
    clips, kind = encoded.clips, KINDS[encoded.clips.kind]
    rows = torch.from_numpy(rng.integers(len(clips.video), size=BATCH))
    frames = latent_frames(kind.frames)
    if clips.kind == "image":
        frames = int(rng.choice(tuple(LENGTHS), p=tuple(LENGTHS.values())))
    beside = clips.beside[rows, :, :frames].float()
    if kind.is_portrait and kind.last:
        most = MOST_NOISE * torch.from_numpy(rng.uniform(size=(BATCH, 1, 1, 1, 1))).float()
        beside[:, MASK_CHANNELS:] += most * torch.randn_like(beside[:, MASK_CHANNELS:])
    video, velocity = add_noise(clips.video[rows, :, :frames].float(), levels(rng, BATCH, 1), beside)
    said = (rng.uniform(size=BATCH) >= DROPPED).tolist()
    captions = [draw_caption(rng, clips.captions[row]) for row in rows.tolist()]
    captions = [text if is_said else "" for text, is_said in zip(captions, said, strict=True)]
    audio = None
    if encoded.audio is not None:
        is_heard = torch.from_numpy(rng.uniform(size=BATCH) >= DROPPED)
        audio = encoded.audio[rows] * is_heard[:, None, None, None, None]
    weight = 1 + SHAPE * clips.cover[rows, None, :frames].float()
    return Example([video], velocity, weight, captions, encoded.image[rows], audio)


def states_of_frames(encoder: Wav2Vec2Model, samples: NDArray[np.float32], frames: int) -> Tensor:
    """Return the states after every layer [F, L, C], with gradients: what ``audio_features`` returns."""
    speech = Wav2Vec2FeatureExtractor()(samples, sampling_rate=world.RATE, return_tensors="pt")

    def at_frames(_module: nn.Module, _given: object, steps: Tensor) -> Tensor:
        return functional.interpolate(steps, size=frames, mode="linear", align_corners=True)

    hook = encoder.feature_extractor.register_forward_hook(at_frames)
    states = encoder(**speech, output_hidden_states=True).hidden_states[1:]
    hook.remove()
    return torch.stack(states, dim=2)[0]


def train_audio_encoder(encoder: Wav2Vec2Model) -> float:
    """Train until a linear layer finds in its states how loud a voice is; returns the last error."""
    head = nn.Linear(AUDIO_ENCODER["num_hidden_layers"] * AUDIO_ENCODER["hidden_size"], 1)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, AUDIO_STEPS)
    errors = []
    for step in range(AUDIO_STEPS):
        rng, losses = np.random.default_rng((1, step)), []
        for _ in range(AUDIO_BATCH):
            loudness = world.draw_loudness(rng, int(rng.integers(25, image_bank.LONGEST_SOUND)))
            states = states_of_frames(encoder, world.voice(rng, loudness), len(loudness))
            heard = head(states.flatten(1))[:, 0]
            losses.append((heard - torch.from_numpy(loudness)).square().mean())
        optimizer.zero_grad()
        error = torch.stack(losses).mean()
        error.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        errors.append(float(error.detach()))
    return float(np.mean(errors[-50:]))


def make_encoders(folder: Path) -> tuple[CLIPVisionModel, Wav2Vec2Model]:
    """Return the image and the audio encoder from a folder, where they are made first."""
    if not (folder / "audio_encoder/model.safetensors").is_file():
        torch.manual_seed(0)
        image_encoder = COMPONENTS["image_encoder"].make(IMAGE_ENCODER).eval()
        audio_encoder = COMPONENTS["audio_encoder"].make({**AUDIO_ENCODER, **UNMASKED}).eval()
        for encoder in (image_encoder, audio_encoder):
            tiny.randomize(encoder)
        print("error of the loudness heard:", train_audio_encoder(audio_encoder), flush=True)
        save({"image_encoder": image_encoder, "audio_encoder": audio_encoder}, folder)
    image_encoder = CLIPVisionModel.from_pretrained(folder / "image_encoder", dtype=torch.float32)
    audio_encoder = Wav2Vec2Model.from_pretrained(folder / "audio_encoder", dtype=torch.float32)
    return image_encoder.eval().requires_grad_(False), audio_encoder.eval().requires_grad_(False)


def save(modules: dict[str, nn.Module], folder: Path) -> None:
    """Write components, bfloat16."""
    for name, module in modules.items():
        module.to(torch.bfloat16).save_pretrained(folder / name)


def first_network(base: WanDiT) -> WanDiT:
    """Return a network with blocks of the first one; new channels and audio have no effect at first."""
    sizes = {name: value for name, value in base.config.items() if not name.startswith("_")}
    dit = WanDiT(**sizes | IMAGE_AND_AUDIO)
    kept = {
        re.sub(r"^blocks\.(\d+)\.", lambda found: f"blocks.{BASE_BLOCKS.index(int(found[1]))}.", name): value
        for name, value in base.state_dict().items()
        if not name.startswith("blocks.") or int(name.split(".")[1]) in BASE_BLOCKS
    }
    patches = kept.pop("patch_embedding.weight")
    missing, unexpected = dit.load_state_dict(kept, strict=False)
    assert not unexpected
    assert all(NEW_PARTS.search(name) for name in missing if name != "patch_embedding.weight")
    with torch.no_grad():
        dit.patch_embedding.weight.zero_()[:, : patches.shape[1]] = patches
        for block in dit.blocks:
            nn.init.zeros_(block.audio_cross_attn.proj.weight)
            nn.init.zeros_(block.audio_cross_attn.proj.bias)
    return dit


def choose(files: Sequence[EncodedClips], rng: np.random.Generator) -> EncodedClips:
    """Draw a kind, and one of its files."""
    kind = rng.choice(tuple(SHARES), p=tuple(SHARES.values()))
    same = [encoded for encoded in files if encoded.clips.kind == kind]
    return same[rng.integers(len(same))]


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, default=config.weights_folder(), help="folder that train_dit has made"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of latents, checkpoint, log and model"
    )
    parser.add_argument("--steps", type=int, default=3200)
    arguments = parser.parse_args()
    model = arguments.out / "model"
    vae = AutoencoderKLWan.from_pretrained(arguments.model / "vae", torch_dtype=torch.float32)
    bank.make(arguments.out / "bank", len(image_bank.FILES), partial(image_bank.encode_file, vae))
    encoders = make_encoders(model)
    files = [encode_conditions(clips, *encoders) for clips in image_bank.load(arguments.out / "bank")]

    tokenizer = AutoTokenizer.from_pretrained(arguments.model / "tokenizer")
    encoder = UMT5EncoderModel.from_pretrained(arguments.model / "text_encoder", dtype=torch.float32)
    encoder.requires_grad_(False)
    torch.manual_seed(0)
    dit = first_network(WanDiT.from_pretrained(arguments.model / "transformer", torch_dtype=torch.float32))
    prepare(dit)
    trainer = Trainer({"transformer": dit}, arguments.out, arguments.steps, rates=(1e-3, 2e-5))

    def write() -> None:
        averaged = WanDiT.from_config(dit.config)
        averaged.load_state_dict(trainer.averages["transformer"])
        save({"transformer": averaged}, model)

    trainer.train(lambda _, rng: loss_of(dit, encoder, tokenizer, draw(choose(files, rng), rng)), write)


if __name__ == "__main__":
    main()
