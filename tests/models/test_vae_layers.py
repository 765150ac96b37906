"""Our layers of the VAEs compute what diffusers' do, in less memory."""

import accelerate
import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.hooks import apply_group_offloading
from torch import nn

from benchmarks.live_memory import Watch
from videogen.models.hunyuan import transformer, vae_layers
from videogen.models.kernels import operators
from videogen.models.kernels.convolution import convolve
from videogen.models.vae_layers import LAYERS, use_fused_layers
from videogen.models.wan import vae as vae_io

CPU = torch.device("cpu")
WAN21 = {"z_dim": 16}
WAN22 = {
    **{"decoder_base_dim": 16, "z_dim": 48, "is_residual": True, "in_channels": 12, "out_channels": 12},
    **{"patch_size": 2, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48},
}


@pytest.fixture(params=[WAN21, WAN22], ids=["2.1", "2.2"])
def both(request):
    """The same weights in diffusers' layers and in ours."""
    torch.manual_seed(0)
    pair = [AutoencoderKLWan(base_dim=8, **request.param).eval() for _ in range(2)]
    for name, parameter in pair[0].named_parameters():
        if "gamma" in name:  # ones, as they are made
            nn.init.normal_(parameter)
    pair[1].load_state_dict(pair[0].state_dict())
    use_fused_layers(pair[1])
    return pair


def noise(vae, frames=4, height=6, width=5, batch=1):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, vae.config.z_dim, frames, height, width, generator=draw)


def pictures(vae, frames, batch=1):
    scale, draw = vae.spatial_compression_ratio, torch.Generator().manual_seed(2)
    return torch.rand(batch, 3, frames, 4 * scale, 3 * scale, generator=draw) * 2 - 1


def test_every_layer_is_replaced(both):
    kinds = {type(module) for module in both[1].modules()}
    assert not kinds & LAYERS.keys()
    assert kinds & set(LAYERS.values())


@pytest.fixture(params=[False, True], ids=["plain", "kernels"])
def _kernels(request, monkeypatch):
    """Take the way that is taken where there are kernels; on the CPU their plain forms are behind it."""
    if request.param:
        monkeypatch.setattr(operators.FusedOp, "is_used", lambda op, x: not torch.is_grad_enabled())


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("frames", [1, 4])
def test_decoding_is_the_same(both, frames):
    plain, ours = (vae_io.decode(vae, noise(vae, frames, batch=2)) for vae in both)
    torch.testing.assert_close(ours, plain, atol=2e-5, rtol=0)


def test_results_have_the_usual_order_in_memory(both, hunyuans):
    """A resumed run reads them from a file; what follows may round otherwise in another order."""
    vae, scale = both[1], both[1].spatial_compression_ratio
    made = [vae_io.encode(vae, pictures(vae, 5)), *vae_io.decode_stream(vae, noise(vae))]
    vae.enable_tiling(4 * scale, 4 * scale, 2 * scale, 2 * scale)
    made += vae_io.decode_stream(vae, noise(vae))
    ours, latents = hunyuans[1], torch.randn(1, 16, 9, 10, 5)
    for tiled in (False, True):
        ours.use_tiling = tiled
        made += transformer.decode_stream(ours, latents, vae_io.onload)
    made += [transformer.encode_image(ours, torch.rand(1, 3, 1, 32, 32), vae_io.onload)]
    assert all(result.is_contiguous() for result in made)


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_encoding_is_the_same(both, frames):
    plain, ours = (vae_io.encode(vae, pictures(vae, frames, batch=2)) for vae in both)
    torch.testing.assert_close(ours, plain, atol=2e-6, rtol=0)


def test_bfloat16_is_no_farther_from_float32_than_diffusers(both):
    exact = vae_io.decode(both[0], noise(both[0]))
    for vae in both:
        vae.decoder.bfloat16()
        vae.post_quant_conv.bfloat16()
    plain, ours = ((vae_io.decode(vae, noise(vae)) - exact).abs().mean() for vae in both)
    assert 0 < ours < plain


def sequential(vae):
    accelerate.cpu_offload(vae, execution_device=CPU)


def leaf_groups(vae):
    apply_group_offloading(vae, onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


@pytest.mark.parametrize("offload", [sequential, leaf_groups])
def test_offloaded_layer_by_layer(both, offload):
    """As in diffusers' recipes: hooks bring the weights of a layer when it is called, and only then."""
    plain, ours = both
    latents, video = noise(plain), pictures(plain, 5)
    wanted = vae_io.decode(plain, latents), vae_io.encode(plain, video)
    offload(ours)
    ours.requires_grad_(False)
    made = ours.decode(vae_io.denormalize(plain, latents)).sample, ours.encode(video).latent_dist.mode()
    torch.testing.assert_close(made[0], wanted[0], atol=2e-5, rtol=0)
    torch.testing.assert_close(vae_io.normalize(plain, made[1]), wanted[1], atol=2e-6, rtol=0)


@pytest.mark.parametrize("offload", [sequential, leaf_groups])
def test_hunyuan_offloaded_layer_by_layer(hunyuans, offload):
    plain, ours = hunyuans
    plain.use_tiling = ours.use_tiling = False
    latents = torch.randn(1, 16, 2, 6, 5)
    with torch.no_grad():
        wanted = plain.decode(latents).sample
        offload(ours)
        torch.testing.assert_close(ours.decode(latents).sample, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_less_memory(both):
    peaks = {"decode": [], "encode": [], "encode one": []}
    for vae in both:
        latents, video = noise(vae, 3, 12, 12), pictures(vae, 9)
        for name, work in (
            ("decode", lambda vae=vae, x=latents: [None for _ in vae_io.decode_stream(vae, x)]),
            ("encode", lambda vae=vae, x=video: vae_io.encode(vae, x)),
            ("encode one", lambda vae=vae, x=video[:, :, :1]: vae_io.encode(vae, x)),
        ):
            with Watch() as watch:
                work()
            peaks[name].append(watch.peak)
    ratio = {name: ours / plain for name, (plain, ours) in peaks.items()}
    assert ratio["decode"] < 0.85, ratio
    assert ratio["encode"] < 0.8, ratio
    assert ratio["encode one"] < 1, ratio


HUNYUAN = {
    **{"latent_channels": 16, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1},
    **{"norm_num_groups": 4, "sample_size": 64, "sample_tsize": 16},
}


@pytest.fixture
def hunyuans():
    """HunyuanVideo's VAE with the same weights in diffusers' layers and in ours."""
    torch.manual_seed(0)
    pair = [transformer.make_vae(HUNYUAN).eval() for _ in range(2)]
    for parameter in pair[0].parameters():
        if parameter.ndim == 1:  # norms and biases, so that means are far from zero
            nn.init.normal_(parameter)
    pair[1].load_state_dict(pair[0].state_dict())
    use_fused_layers(pair[1])
    return pair


def hunyuan_decoded(vae, latents):
    return torch.cat(list(transformer.decode_stream(vae, latents, vae_io.onload)), dim=2)


@pytest.fixture(params=[vae_layers.PART, 20_000], ids=["whole", "in parts"])
def _parts(request, monkeypatch):
    monkeypatch.setattr(vae_layers, "PART", request.param)


@torch.no_grad()
@pytest.mark.usefixtures("_parts")
@pytest.mark.parametrize(("tiled", "size"), [(True, (9, 14, 20)), (True, (9, 6, 7)), (False, (3, 14, 20))])
@pytest.mark.slow
def test_hunyuan_decodes_the_same(hunyuans, tiled, size):
    plain, ours = hunyuans
    plain.use_tiling = ours.use_tiling = plain.use_framewise_decoding = tiled
    latents = torch.randn(1, 16, *size)
    published = plain.decode(latents / plain.config.scaling_factor).sample
    assert torch.equal(hunyuan_decoded(plain, latents), published)  # also how tiles are blended
    torch.testing.assert_close(hunyuan_decoded(ours, latents), published, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.usefixtures("_parts")
def test_hunyuan_encodes_the_same(hunyuans):
    image = torch.rand(2, 3, 1, 64, 80) * 2 - 1
    plain, ours = (transformer.encode_image(vae, image, vae_io.onload) for vae in hunyuans)
    torch.testing.assert_close(ours, plain, atol=2e-6, rtol=0)
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    plain, ours = (vae.encoder(video) for vae in hunyuans)
    torch.testing.assert_close(ours, plain, atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.usefixtures("_parts")
def test_hunyuan_takes_less_memory(hunyuans):
    latents, peaks = torch.randn(1, 16, 5, 8, 8), []
    for vae in hunyuans:
        with Watch() as watch:
            hunyuan_decoded(vae, latents)
        peaks.append(watch.peak)
    assert peaks[1] < peaks[0] * (0.9 if vae_layers.PART > 20_000 else 0.7), peaks


@torch.no_grad()
@pytest.mark.usefixtures("_parts")
def test_hunyuan_in_bfloat16_is_no_farther_from_float32_than_diffusers(hunyuans):
    latents = torch.randn(1, 16, 5, 8, 8)
    exact = hunyuan_decoded(hunyuans[0], latents)
    for vae in hunyuans:
        vae.decoder.bfloat16()
        vae.post_quant_conv.bfloat16()
    plain, ours = ((hunyuan_decoded(vae, latents) - exact).abs().mean() for vae in hunyuans)
    assert 0 < ours < plain * 1.05


def test_a_norm_of_parts_is_that_of_the_whole(monkeypatch):
    """Also far from zero, where differences of squares would be off, and as it is computed on a GPU."""
    torch.manual_seed(0)
    x = (torch.randn(2, 12, 7, 5, 6) + 100).contiguous(memory_format=torch.channels_last_3d)
    norm = nn.GroupNorm(3, 12)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    wanted = norm.double()(x.double())
    norm.float()
    monkeypatch.setattr(vae_layers, "PART", x.nbytes // 3)
    moments = {
        "cpu": vae_layers._moments,
        "gpu": lambda part: torch.var_mean(part, dim=(2, 3, 4), correction=0),
    }
    for form in moments.values():
        monkeypatch.setattr(vae_layers, "_moments", form)
        scale, shift = vae_layers._scale_and_shift(x, norm)
        torch.testing.assert_close((x.double() * scale + shift), wanted, atol=1e-3, rtol=0)
    monkeypatch.undo()
    x = (torch.randn(2, 12, 7, 5, 6) + 5).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    scale, shift = vae_layers._scale_and_shift(x, norm)
    wanted = norm.double()(x.double())
    torch.testing.assert_close((x.double() * scale + shift), wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("channels", [3, 8, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_are_the_same(channels, dtype):
    layer = nn.Conv3d(channels, 6, 3, stride=(1, 2, 1), padding=(0, 1, 1)).to(dtype)
    x = torch.randn(2, channels, 4, 9, 8, dtype=dtype)
    wanted, limit = layer(x), 1e-5 if dtype == torch.float32 else 2e-2
    for given in (x, x.contiguous(memory_format=torch.channels_last_3d)):
        torch.testing.assert_close(convolve(layer, given, layer.padding), wanted, atol=limit, rtol=0)


def test_few_channels_go_to_onednn():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    layer, x = nn.Conv3d(8, 8, 3), torch.randn(1, 8, 3, 9, 9)
    with torch.profiler.profile() as profile:
        convolve(layer, x, (0, 1, 1))
    assert any("mkldnn_convolution" in event.key for event in profile.key_averages())
    layer.to("meta")
    assert convolve(layer, x.to("meta"), (0, 1, 1)).shape == (1, 8, 1, 9, 9)
