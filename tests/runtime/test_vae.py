"""Streaming decode is the library's decode; tiled decode is close to it and shows no seam."""

from itertools import product

import pytest
import torch

from tests.conftest import GOLDEN
from videogen.models.components import load_component
from videogen.models.hunyuan import transformer
from videogen.models.vae_layers import use_fused_layers
from videogen.models.wan import vae as vae_io
from videogen.runtime.vae import order_channels_last, prepare_vae

IDS = [f"{name}-{layers}" for name in ("2.1", "2.2") for layers in ("diffusers", "ours")]
FILES = ["skyreels_v3/checkpoint-v2v/Wan2.1_VAE.pth", "wan22/checkpoint-ti2v-5b/Wan2.2_VAE.pth"]


@pytest.fixture(params=[(file, fused) for file in FILES for fused in (False, True)], ids=IDS)
def vae(request):
    """Wan's VAEs, with diffusers' layers and with ours."""
    file, fused = request.param
    vae = load_component("vae", GOLDEN / file)
    if fused:
        use_fused_layers(vae)
    return vae


def noise(vae, frames, height, width):
    shape = (1, vae.config.z_dim, frames, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_streaming_equals_one_shot(vae):
    latents = noise(vae, 4, 6, 5)
    chunks = list(vae_io.decode_stream(vae, latents))
    assert [chunk.shape[2] for chunk in chunks] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(chunks, dim=2), vae.decode(vae_io.denormalize(vae, latents)).sample)


@torch.no_grad()
def test_two_streams_do_not_disturb_each_other(vae):
    first, second = noise(vae, 3, 4, 4), noise(vae, 3, 6, 4).flip(2)
    both = zip(vae_io.decode_stream(vae, first), vae_io.decode_stream(vae, second), strict=True)
    interleaved = [torch.cat(chunks, dim=2) for chunks in zip(*both, strict=True)]
    assert torch.equal(interleaved[0], vae_io.decode(vae, first))
    assert torch.equal(interleaved[1], vae_io.decode(vae, second))


@torch.no_grad()
def test_encode_drops_frames_beyond_4k1_and_is_never_tiled(vae):
    scale = vae.spatial_compression_ratio
    video = torch.rand(1, 3, 7, 4 * scale, 4 * scale) * 2 - 1
    expected = vae_io.encode(vae, video[:, :, :5])
    vae.enable_tiling(2 * scale, 2 * scale, scale, scale)
    assert torch.equal(vae_io.encode(vae, video), expected)
    assert vae.use_tiling


def decoded_in_turn(vae, latents):
    """Tiles decoded and blended one latent frame after the other, each with a cache of its own."""
    scale, frames, latents = vae.spatial_compression_ratio, [], vae_io.denormalize(vae, latents)
    rows = vae_io.spans(latents.shape[-2], 12, 8, scale)
    columns = vae_io.spans(latents.shape[-1], 12, 8, scale)
    tiles = [(row, column, vae_io._CausalDecoder(vae)) for row, column in product(rows, columns)]
    for frame in latents.split(1, dim=2):
        picture = None
        for row, column, decoder in tiles:
            tile = decoder(frame[..., row.start : row.stop, column.start : column.stop])
            if picture is None:
                picture = tile.new_zeros(*tile.shape[:3], *(scale * side for side in latents.shape[-2:]))
            weight = torch.outer(row.weight, column.weight)
            picture[..., row.pixels(scale), column.pixels(scale)] += tile * weight
        frames.append(picture)
    return frames


@torch.no_grad()
def test_tiles_go_through_all_frames_one_by_one(vae):
    scale, latents = vae.spatial_compression_ratio, noise(vae, 3, 20, 14)
    vae.enable_tiling(12 * scale, 12 * scale, 8 * scale, 8 * scale)
    chunks = list(vae_io.decode_stream(vae, latents))
    assert [chunk.shape[2] for chunk in chunks] == [1, 4, 4]
    for chunk, wanted in zip(chunks, decoded_in_turn(vae, latents), strict=True):
        torch.testing.assert_close(chunk, wanted, atol=1e-6, rtol=0)
    assert [chunk.shape[2] for chunk in vae_io.decode_stream(vae, latents[:, :, :1])] == [1]


def step_across(video, column):
    """Mean jump from one pixel column to the next."""
    return (video[..., column] - video[..., column - 1]).abs().mean()


@torch.no_grad()
@pytest.mark.slow
def test_tiles_are_blended_without_a_seam(vae):
    """Random weights look far around, so tiles differ a lot: what matters is that no edge can be seen."""
    scale, latents = vae.spatial_compression_ratio, noise(vae, 3, 20, 30)
    whole = vae_io.decode(vae, latents)
    vae.enable_tiling(12 * scale, 12 * scale, 8 * scale, 8 * scale)
    tiled = vae_io.decode(vae, latents)
    assert tiled.shape == whole.shape
    difference = tiled - whole
    assert difference.norm() / whole.norm() < 0.25

    columns = vae_io.spans(30, 12, 8, scale)
    edges = [span.start * scale for span in columns[1:]] + [span.stop * scale for span in columns[:-1]]
    usual = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    assert all(step_across(difference, edge) < 1.2 * usual for edge in edges)
    assert all(step_across(tiled, edge) < 1.1 * step_across(whole, edge) for edge in edges)

    # The same tiles laid side by side do show: the measure can fail.
    vae.enable_tiling(15 * scale, 15 * scale, 15 * scale, 15 * scale)
    pasted = vae_io.decode(vae, latents) - whole
    assert step_across(pasted, 15 * scale) > 1.2 * (pasted[..., 1:] - pasted[..., :-1]).abs().mean()


@torch.no_grad()
def test_a_local_decoder_is_tiled_exactly_away_from_edges(vae):
    """Without the middle attention the decoder sees a few pixels only; inside a tile nothing changes."""
    for attention in vae.decoder.mid_block.attentions:
        attention.proj.weight.zero_()
        attention.proj.bias.zero_()
    scale, latents = vae.spatial_compression_ratio, noise(vae, 2, 6, 60)
    whole = vae_io.decode(vae, latents)
    vae.enable_tiling(6 * scale, 40 * scale, 6 * scale, 20 * scale)
    tiled = vae_io.decode(vae, latents)
    core = slice(0, 8 * scale)  # left of the overlap and of its reach
    torch.testing.assert_close(tiled[..., core], whole[..., core], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("length", "tile", "stride"), [(30, 12, 8), (57, 32, 24), (12, 12, 8), (5, 12, 8), (13, 12, 12)]
)
def test_tile_weights_sum_to_one(length, tile, stride):
    total = torch.zeros(length * 2)
    for span in vae_io.spans(length, tile, stride, 2):
        total[span.pixels(2)] += span.weight
    torch.testing.assert_close(total, torch.ones_like(total))


@torch.no_grad()
def test_decoding_in_bfloat16_leaves_encoding_alone(vae):
    latents, scale = noise(vae, 2, 6, 5), vae.spatial_compression_ratio
    video = torch.rand(1, 3, 5, 2 * scale, 2 * scale) * 2 - 1
    use_fused_layers(vae)
    exact, encoded = vae_io.decode(vae, latents), vae_io.encode(vae, video)
    prepare_vae(vae, torch.device("cpu"), torch.bfloat16)
    rough = vae_io.decode(vae, latents)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.02
    assert torch.equal(vae_io.encode(vae, video), encoded)


@torch.no_grad()
def test_order_of_weights_does_not_matter(vae):
    latents = noise(vae, 2, 6, 5)
    expected = vae_io.decode(vae, latents)
    order_channels_last(vae)
    weight = vae.decoder.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not weight.is_contiguous()
    assert torch.allclose(vae_io.decode(vae, latents), expected, atol=1e-5)


@torch.no_grad()
def test_hunyuan_decodes_in_bfloat16():
    vae = load_component("hunyuan_vae", GOLDEN / "hunyuan/checkpoint-A/hunyuan-video-i2v-720p/vae")
    latents = torch.randn(1, vae.config.latent_channels, 2, 4, 4)
    exact = torch.cat([*transformer.decode_stream(vae, latents, vae_io.onload)], dim=2)
    prepare_vae(vae, torch.device("cpu"), torch.bfloat16)
    rough = torch.cat([*transformer.decode_stream(vae, latents, vae_io.onload)], dim=2)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.05 * exact.std()
