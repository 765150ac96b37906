"""Text encoder, VAEs, CLIP, schedulers, size rules and image preparation against the published numbers."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import GOLDEN
from videogen.diffusion import sampling
from videogen.media.image import fit_on_white
from videogen.models.components import load_component
from videogen.models.wan import vae as vae_io
from videogen.models.wan.text import encode_prompt
from videogen.tasks.geometry import bucket_size
from videogen.tasks.prompt_text import clean_prompt
from videogen.tasks.table import TASKS

V2V = GOLDEN / "skyreels_v3/checkpoint-v2v"


def assert_close(ours, published, *, atol, rtol=0.0):
    assert ours.shape == published.shape
    torch.testing.assert_close(ours, published, atol=atol, rtol=rtol)


@torch.no_grad()
def test_umt5_from_the_published_pickle(golden):
    case = golden("skyreels_v3/umt5")
    encoder = load_component("text_encoder", V2V / "models_t5_umt5-xxl-enc-bf16.pth")
    tokenizer = load_component("tokenizer", V2V / "google/umt5-xxl")
    kept = case.about["position_index"]
    for index, prompt in enumerate(case.about["arguments"]["prompts"]):
        assert clean_prompt(prompt) == case.about["cleaned_prompts"][index]
        rows = encode_prompt(tokenizer, encoder, prompt, torch.device("cpu"))[0]
        assert_close(rows[kept], case.outputs["context"][index], atol=1e-4, rtol=1e-3)
        norms = rows.norm(dim=-1)
        assert_close(norms, case.outputs["context_row_norms"][index], atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_wan21_vae_from_the_published_pickle(golden):
    case = golden("skyreels_v3/wan_vae")
    vae = load_component("vae", V2V / "Wan2.1_VAE.pth")
    latents = vae_io.encode(vae, case.inputs["video"])
    assert_close(latents, case.outputs["encoded"], atol=2e-4, rtol=1e-3)
    first = vae_io.encode(vae, case.inputs["video"][:, :, :1])
    assert_close(first, case.outputs["encoded_first_frame_only"], atol=2e-4, rtol=1e-3)
    for source, expected in (
        (case.outputs["encoded"], case.outputs["decoded_of_encoded"]),
        (case.inputs["random_latents"], case.outputs["decoded_of_random"]),
    ):
        assert_close(vae_io.decode(vae, source), expected, atol=2e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "file"),
    [("vae2_1", "checkpoint-i2v-a14b/Wan2.1_VAE.pth"), ("vae2_2", "checkpoint-ti2v-5b/Wan2.2_VAE.pth")],
)
def test_wan22_vaes_from_the_published_pickles(golden, name, file):
    case = golden(f"wan22/{name}")
    vae = load_component("vae", GOLDEN / "wan22" / file)
    latents = vae_io.encode(vae, case.inputs["video"][None])
    assert_close(latents[0], case.outputs["latent"], atol=2e-4)
    video = vae_io.decode(vae, case.inputs["random_latent"][None])
    assert_close(video[0], case.outputs["decode_of_random_latent"], atol=2e-4)


UNIPC = [
    *[("flow_unipc", n, shift, sampling.SIGMA_MAX) for n, shift in ((8, 8), (8, 5), (30, 5), (4, 3))],
    *[("diffusers034_unipc", n, shift, sampling.SIGMA_MAX_DOUBLE) for n, shift in ((8, 5), (20, 5), (8, 3))],
]


@pytest.mark.parametrize(("name", "steps", "shift", "sigma_max"), UNIPC)
def test_unipc(golden, name, steps, shift, sigma_max):
    case = golden("skyreels_v3/scheduler")
    expected = {
        part: case.outputs[f"{name}_n{steps}_shift{shift}_{part}"] for part in ("timesteps", "sigmas", "traj")
    }
    solver = sampling.unipc(steps, shift, sigma_max=sigma_max)
    assert torch.equal(solver.timesteps, expected["timesteps"])
    assert_close(solver.sigmas, expected["sigmas"], atol=1e-6)
    seen = [case.inputs["x"]]

    def predict(x, t):
        return torch.tanh(0.8 * x) + 0.5 * torch.cos(3 * x + t / 200)

    def keep(index, row, latents):
        seen.append(latents)
        return latents

    sampling.denoise(seen[0], solver.timesteps, predict, solver.step, on_step=keep)
    kept = range(steps + 1) if steps <= 20 else [0, 1, 2, 3, steps // 2, steps - 1, steps]
    assert_close(torch.stack([seen[i] for i in kept]), expected["traj"], atol=2e-5)


def test_wan22_solvers(golden):
    case = golden("wan22/schedulers")
    (start,) = [tensor for name, tensor in case.inputs.items() if name.endswith("x")] or case.inputs.values()
    for setting in case.about["sets"]:
        solver = sampling.SOLVERS[setting["solver"]](setting["steps"], setting["shift"])
        key = setting["key"]
        assert torch.equal(solver.timesteps, case.outputs[f"{key}_timesteps"])
        assert_close(solver.sigmas, case.outputs[f"{key}_sigmas"], atol=1e-6)
        seen = []

        def predict(x, t):
            return 0.6 * x + 0.4 * torch.sin(2 * x + 3 * t / 1000) - 0.2 * (1 - t / 1000)

        def keep(index, row, latents, seen=seen):
            seen.append(latents)
            return latents

        sampling.denoise(start, solver.timesteps, predict, solver.step, on_step=keep)
        kept = torch.stack([seen[i] for i in setting["trajectory_steps"]])
        assert_close(kept, case.outputs[f"{key}_trajectory"], atol=2e-4)


def test_avatar_euler_times():
    """Spec talking_avatar section 7: 4 steps, shift 11."""
    solver = sampling.euler(4, 11)
    published = torch.tensor([1000, 956.58411, 846.54370, 10.891090])
    assert_close(solver.timesteps, published, atol=1e-3)
    assert solver.sigmas[-1] == 0


def test_sizes(golden):
    pairs = json.loads((golden("skyreels_v3/resolution_tables").folder / "golden_pairs.json").read_text())[
        "pairs"
    ]
    tables = TASKS["reference_to_video"].size_tables()
    for pair in pairs:
        size = bucket_size(tables[pair["resolution"]], pair["width"], pair["height"])
        assert size == (pair["out_height"], pair["out_width"]), pair


def test_reference_images_on_white(golden):
    case = golden("skyreels_v3/r2v_ref_image_prep")
    for name, expected in case.outputs.items():
        reference, _, size = name.partition("_to_")
        width, height = map(int, size.split("x"))
        image = Image.open(GOLDEN / f"skyreels_v3/r2v_e2e/{reference}.png").convert("RGB")
        ours = np.asarray(fit_on_white(image, width, height))
        assert np.abs(ours.astype(int) - expected.numpy().astype(int)).max() <= 1, name
