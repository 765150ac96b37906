"""Train the miniature's DiT and text encoder: ``python -m miniature.train_dit --vae FOLDER --out FOLDER``.

Every frame has a noise level of its own, so that one network learns all tasks: a video from text, one that
goes on from an image or from frames, one that also ends with an image, one of a reference, and a new shot of
the same shape. The same command goes on where a run has stopped. ``OUT/model`` is a model folder.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from miniature import bank
from miniature.denoising import SHAPE, Example, add_noise, draw_caption, levels, loss_of, prepare
from miniature.text import WIDTH, text_encoder, word_tokenizer
from miniature.training import Trainer
from videogen.diffusion.conditioning import Segment
from videogen.models import tiny
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.shot_switching_extension import SHOT_POSITION

DIT = {
    "num_attention_heads": 8,
    "attention_head_dim": 32,
    "ffn_dim": 768,
    "num_layers": 6,
    "freq_dim": 128,
    "text_dim": WIDTH,
}
BATCH = 16
LENGTHS = (5, 7, 9, 13)  # latent frames
SHARES = (
    (0.4, (0.7, 0.15, 0.15, 0.0)),
    (1.0, (0.2, 0.15, 0.5, 0.15)),
)  # of lengths, until a part of the training
TASKS = {  # of clips from their beginning, and of long ones
    "video": (0.45, 0.10),
    "forcing": (0.15, 0.20),
    "prefix": (0.15, 0.50),
    "end_image": (0.08, 0.0),
    "reference": (0.12, 0.0),
    "shot": (0.05, 0.20),
}
NOISY, MOST_NOISE = 0.2, 0.06  # part of known frames that have a little noise, and how much at most
EXTENDED = 7  # latent frames that an extension takes
SHOT_LENGTH = 13  # latent frames of a shot of 2 s
WITHOUT_TEXT = 0.12
GIVEN = {"both": 0.65, "text": 0.12, "reference": 0.08, "neither": 0.15}  # what guidance compares
UNNAMED = 0.6  # of captions beside a reference or another shot: "the object"
REFERENCES = 4  # slots for references; empty ones are zeros


class Examples:
    """Draws training examples from the bank; each method is a task.

    Args:
        part: of the training that is done, 0..1.
    """

    def __init__(self, clips: bank.Clips, rng: np.random.Generator, part: float) -> None:
        self.clips, self.rng, self.part = clips, rng, part
        self.is_long = clips.video.shape[2] > max(LENGTHS)
        self.rows = torch.from_numpy(rng.integers(len(clips.video), size=BATCH))

    def draw(self) -> Example:
        """Draw a batch of one task."""
        shares = [share[self.is_long] for share in TASKS.values()]
        draw: Callable[[], Example] = getattr(self, str(self.rng.choice(tuple(TASKS), p=shares)))
        return draw()

    def video(self) -> Example:
        """Draw one noise level for all frames."""
        frames = self.frames()
        return self.example(frames, levels(self.rng, BATCH, 1).expand(-1, frames))

    def forcing(self) -> Example:
        """Draw a noise level for every frame: any, or a ramp from frames that are clean to pure noise."""
        frames = self.frames()
        start, end = np.sort(self.rng.uniform(-frames, 2 * frames, (2, BATCH, 1)), axis=0)
        ramp = (np.arange(frames) - start) / np.maximum(end - start, 1)
        chosen = torch.from_numpy(self.rng.uniform(size=(BATCH, 1)) < 0.5)
        rising = torch.from_numpy(ramp.clip(0, 1)).float()
        return self.example(frames, torch.where(chosen, rising, levels(self.rng, BATCH, frames)))

    def prefix(self) -> Example:
        """Let the first frames be known: an image, the 25 frames that extension takes, or any number."""
        kind = self.rng.uniform()
        frames = self.frames()
        known = 1 if kind < 0.4 else int(self.rng.integers(1, frames - 1))
        if self.is_long and kind >= 0.3:
            known, frames = EXTENDED, self.clips.video.shape[2]
        level = levels(self.rng, BATCH, 1).expand(-1, frames).clone()
        noisy = (self.rng.uniform(size=(BATCH, 1)) < NOISY) * self.rng.uniform(0, MOST_NOISE, (BATCH, 1))
        level[:, :known] = torch.from_numpy(noisy).float()
        return self.example(frames, level)

    def end_image(self) -> Example:
        """Let the first frame be known, and put the last one once more behind the video."""
        which = int(self.rng.integers(len(bank.ENDS)))
        frames = bank.ENDS[which]
        level = levels(self.rng, BATCH, 1).expand(-1, frames).clone()
        level[:, :1] = 0
        end = self.clips.ends[self.rows, :, which : which + 1].float()
        after = Segment(latents=end, timestep=torch.zeros(BATCH, 1), temporal_start=frames)
        return self.example(frames, level, after)

    def reference(self) -> Example:
        """Put a picture of the shape behind the video, at its noise level; most captions do not name it."""
        frames = self.frames()
        level = levels(self.rng, BATCH, 1)
        kind = self.rng.choice(tuple(GIVEN), p=tuple(GIVEN.values()), size=BATCH)
        shown = torch.from_numpy(np.isin(kind, ("both", "reference")))
        said = np.isin(kind, ("both", "text")).tolist()
        reference = self.clips.reference[self.rows].float() * shown[:, None, None, None, None]
        slots = torch.cat([reference, torch.zeros_like(reference).repeat(1, 1, REFERENCES - 1, 1, 1)], dim=2)
        timestep = 1000 * level.expand(-1, REFERENCES)
        after = Segment(latents=slots, timestep=timestep, temporal_start=frames)
        names = torch.from_numpy(self.rng.uniform(size=BATCH) >= UNNAMED) | ~shown
        return self.example(frames, level.expand(-1, frames), after, names.tolist(), said)

    def shot(self) -> Example:
        """Put another shot of the shape beside it, clean, at a place in time of its own."""
        frames, shot = SHOT_LENGTH, self.clips.shot[self.rows].float()
        timestep = torch.zeros(BATCH, shot.shape[2])
        before = Segment(latents=shot, timestep=timestep, temporal_start=SHOT_POSITION)
        names = self.rng.uniform(size=BATCH) >= UNNAMED
        return self.example(frames, levels(self.rng, BATCH, 1).expand(-1, frames), before, names.tolist())

    def frames(self) -> int:
        """Draw a length in latent frames."""
        return int(self.rng.choice(LENGTHS, p=next(shares for end, shares in SHARES if self.part <= end)))

    def example(
        self,
        frames: int,
        level: Tensor,
        other: Segment | None = None,
        named: Sequence[bool] = (True,) * BATCH,
        said: Sequence[bool] | None = None,
    ) -> Example:
        """Add noise to the clips' first frames, each at its level [B, F].

        ``named``: whether a caption names the shape; ``said``: whether there is one, by chance if None.
        """
        video, velocity = add_noise(self.clips.video[self.rows, :, :frames].float(), level)
        said = (self.rng.uniform(size=BATCH) >= WITHOUT_TEXT).tolist() if said is None else said
        captions = list(map(self.caption, self.rows.tolist(), named, said))
        segments = [video] if other is None else [video, other]
        cover = self.clips.cover[self.rows, None, :frames].float()
        weight = (1 + SHAPE * cover) * (level[:, None, :, None, None] > 0)
        return Example(segments, velocity, weight, captions)

    def caption(self, row: int, is_named: bool, is_said: bool) -> str:
        """Draw one of a clip's captions."""
        texts = (self.clips.captions if is_named else self.clips.unnamed)[row]
        return draw_caption(self.rng, texts) if is_said else ""


def write(trainer: Trainer, tokenizer: PreTrainedTokenizerFast, vae: AutoencoderKLWan, folder: Path) -> None:
    """Write the model folder with the averaged weights, bfloat16."""
    dit, encoder = WanDiT(**DIT), text_encoder(len(tokenizer))
    dit.load_state_dict(trainer.averages["transformer"])
    encoder.load_state_dict(trainer.averages["text_encoder"])
    modules = {"transformer": dit, "vae": vae, "text_encoder": encoder}
    for module in modules.values():
        module.to(torch.bfloat16)
    tiny.save(tiny.TinyParts(modules, {"tokenizer": tokenizer}, "WanPipeline"), folder)


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="folder that train_vae has made")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of latents, checkpoint, log and model"
    )
    parser.add_argument("--steps", type=int, default=9500)
    parser.add_argument("--files", type=int, default=22, help=f"of {bank.PER_FILE} clips each")
    arguments = parser.parse_args()
    vae = AutoencoderKLWan.from_pretrained(arguments.vae, torch_dtype=torch.float32)
    bank.make(arguments.out / "bank", arguments.files, partial(bank.encode_file, vae))
    clips = list(bank.load(arguments.out / "bank"))
    shares = [len(same.video) for same in clips]

    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    dit, encoder = WanDiT(**DIT), text_encoder(len(tokenizer))
    prepare(dit)
    modules = {"transformer": dit, "text_encoder": encoder}
    trainer = Trainer(modules, arguments.out, arguments.steps, rates=(1e-3, 2e-5))

    def loss(step: int, rng: np.random.Generator) -> Tensor:
        same = clips[rng.choice(len(clips), p=np.array(shares) / sum(shares))]
        example = Examples(same, rng, step / arguments.steps).draw()
        return loss_of(dit, encoder, tokenizer, example)

    trainer.train(loss, lambda: write(trainer, tokenizer, vae, arguments.out / "model"))


if __name__ == "__main__":
    main()
