"""The miniature's training: exact where it saves work, and the same whether it was stopped or not."""

from contextlib import nullcontext

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import nn

from miniature.denoising import ROWS, SharedPadding, encode_text
from miniature.text import WIDTH, text_encoder, word_tokenizer
from miniature.train_decoder import detail_of, loss_of
from miniature.training import Muon, Trainer
from videogen.models.wan.text import TEXT_ROWS, encode_prompt
from videogen.models.wan.transformer import WanDiT

PROMPTS = ["an orange ball rises over snow, the camera pans left", ""]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    return tokenizer, text_encoder(len(tokenizer)).eval()


@torch.no_grad()
def test_padding_as_one_row_gives_what_all_rows_give(encoder):
    tokenizer, network = encoder
    torch.manual_seed(1)
    dit = WanDiT(
        num_attention_heads=2, attention_head_dim=12, text_dim=WIDTH, freq_dim=32, ffn_dim=48, num_layers=2
    )
    whole = torch.cat([encode_prompt(tokenizer, network, text, torch.device("cpu")) for text in PROMPTS])
    short = encode_text(tokenizer, network, PROMPTS)
    assert (whole.shape[1], short.shape[1]) == (TEXT_ROWS, ROWS + 1)
    inputs = torch.randn(2, 16, 3, 4, 6), torch.tensor([900.0, 100.0])
    expected = dit(*inputs, whole).sample
    for block in dit.blocks:
        block.attn2.processor = SharedPadding()
    torch.testing.assert_close(dit(*inputs, short).sample, expected, atol=1e-5, rtol=1e-4)


def test_every_word_of_a_caption_is_known(encoder):
    tokenizer, _ = encoder
    ids = tokenizer(PROMPTS[0]).input_ids
    assert tokenizer.unk_token_id not in ids
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id in tokenizer("a giraffe").input_ids


def test_the_decoder_is_trained_alone():
    vae = AutoencoderKLWan(base_dim=4)
    loss_of(vae, torch.rand(1, 5, 16, 24, 3)).backward()
    assert all(parameter.grad is None for parameter in vae.encoder.parameters())
    assert vae.decoder.conv_out.weight.grad.abs().sum() > 0


def test_detail_is_the_difference_of_brightness_nearby():
    video = torch.full((1, 2, 12, 12, 3), -1.0)
    video[:, :, :, 6:] = 1
    detail = detail_of(video)[0, 0, 6, :, 0]
    assert detail.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]


class Layers(nn.Module):
    """A layer of a block, which Muon trains, and one outside, which AdamW trains."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 3)])
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.blocks[0](x))


@pytest.mark.parametrize("shape", [(40, 24), (24, 40)])
def test_muon_moves_matrices_as_torchs_does(shape):
    torch.manual_seed(2)
    ours, theirs = nn.Linear(*shape, bias=False), nn.Linear(*shape, bias=False)
    theirs.load_state_dict(ours.state_dict())
    options = {"weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}
    optimizers = Muon(ours.parameters()), torch.optim.Muon(theirs.parameters(), lr=1e-3, **options)
    for _ in range(3):
        gradient, before = torch.randn(*ours.weight.shape), ours.weight.clone()
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            layer.weight.grad = gradient.clone()
            optimizer.step()
    assert (ours.weight - before).abs().max() > 3e-4
    torch.testing.assert_close(ours.weight, theirs.weight, atol=5e-5, rtol=0)  # theirs is bfloat16


def train(folder, stop):
    """Train layers until a step, or go on; returns their averaged weights."""
    torch.manual_seed(0)
    layer = Layers()
    trainer = Trainer({"layer": layer}, folder, steps=6, rates=(1e-2, 1e-3))
    written = []

    def loss_of(step, rng):
        if step == stop:
            raise KeyboardInterrupt
        return layer(torch.randn(4, 3) * rng.uniform()).square().mean()

    def write():
        written.append(trainer.step)

    with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
        trainer.train(loss_of, write, log_every=3, write_every=6, save_every=2)
    assert written == ([] if stop else [6])
    return trainer.averages["layer"]


def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    whole = train(tmp_path / "whole", None)
    train(tmp_path / "stopped", 4)
    again = train(tmp_path / "stopped", None)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert not torch.equal(whole["head.weight"], train(tmp_path / "short", 1)["head.weight"])
