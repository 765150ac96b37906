"""SkyReels-V2 end to end, through the command line, against the published pipelines."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

from tests.conftest import GOLDEN
from videogen.diffusion.sampling import FrameSolver, unipc
from videogen.media.image import crop_to_ratio
from videogen.models.components import load_component
from videogen.models.wan.image_encoder import clip_features
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines import diffusion_forcing
from videogen.pipelines.diffusion_forcing import ConditionNoise, visible_frames
from videogen.pipelines.pixels import image_tensor
from videogen.runtime.teacache import Counting
from videogen.tasks.forcing_schedule import forcing_rows

FOLDER = GOLDEN / "skyreels_v2"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
# Cases that hold only the cropped image: where an image lies that is cropped to it.
WHOLE_IMAGES = {
    "df_async_i2v_blockN_quirk": "df_async_i2v_block1",
    "df_sync_i2v_addnoise": "df_sync_i2v",
    "df_long_end_quirk": "df_long_i2v",
    "df_start_end_async": "df_start_end",
}
PLAIN = (
    *("t2v_e2e", "i2v_e2e", "df_sync_t2v", "df_async_t2v", "df_async_causal", "df_sync_i2v"),
    *(
        "df_async_i2v_block1",
        "df_start_end",
        "df_start_end_async",
        "df_long_sync_noaddnoise",
        "df_long_async",
    ),
    *("df_long_i2v", "df_extend_async"),
)
NOISY = ("df_sync_i2v_addnoise", "df_long_sync", "df_extend")
TEACACHE = (
    *("teacache_t2v_ret", "teacache_t2v_noret", "teacache_df_sync_ret"),
    *("teacache_df_sync_noret", "teacache_df_async"),
)


def checkpoint(name, tmp_path):
    """A checkpoint's folder; those whose latents do not depend on their VAE borrow one."""
    folder = FOLDER / name
    if (folder / "Wan2.1_VAE.pth").is_file():
        return folder
    if not (copy := tmp_path / name).exists():
        shutil.copytree(folder, copy)
        shutil.copy(FOLDER / "checkpoint-SkyReels-V2-DF-1.3B-540P/Wan2.1_VAE.pth", copy)
    return copy


def image_of(case, name, tmp_path):
    """The image a case was given, or one that is cropped to the same."""
    other = FOLDER / WHOLE_IMAGES.get(case.folder.name, case.folder.name) / f"{name}.png"
    if other.is_file():
        return other
    cropped = Image.open(case.folder / f"{name.replace('source', 'cropped')}.png")
    assert cropped.size == (90, 66)
    whole = Image.new("RGB", (90, 150))
    whole.paste(cropped, (0, 42))
    whole.save(tmp_path / "whole.png")
    return tmp_path / "whole.png"


def task_of(model):
    return "text_to_video" if "T2V" in model else "image_to_video" if "I2V" in model else "diffusion_forcing"


@pytest.fixture
def published(cli, golden, tmp_path):
    """Run a case as published; returns (case, frames, latents of its segments, sidecar)."""

    def run(name, *extra):
        case = golden(f"skyreels_v2/{name}")
        asked, model = (
            dict(case.about["args"]),
            checkpoint(case.about["checkpoint"].removeprefix("../"), tmp_path),
        )
        task = task_of(model.name)
        causal = bool(case.about.get("causal_attention_block"))
        flags = [f"--{name}={value}" for name, value in asked.items() if value is not None]
        flags += ["--causal_attention"] * causal
        for image, flag in (("source", "--input_image"), ("source_end", "--end_image")):
            if any(
                (case.folder / f"{kind}.png").exists() for kind in (image, image.replace("source", "cropped"))
            ):
                flags += [flag, image_of(case, image, tmp_path)]
        if (case.folder / "prefix.mp4").exists():
            flags += ["--input_video", case.folder / "prefix.mp4"]
        if cache := case.about.get("teacache"):
            flags += ["--teacache", "--teacache_thresh", cache["teacache_thresh"]]
            flags += ["--use_ret_steps"] * cache["use_ret_steps"]
        finished = cli(
            *("--task_type", task, "--model_id", model, "--seed", case.about["seed"], *flags),
            *("--device", "cpu", "--dtype", "float32", "--noise_device", "cpu"),
            *("--output", tmp_path / "video.npy", "--save_latents", tmp_path / "latents.safetensors", *extra),
        )
        assert finished.code == 0, finished.err
        latents = load_file(tmp_path / "latents.safetensors")
        parts = [latents.get(f"latents_{index}", latents.get("latents")) for index in range(len(latents))]
        record = json.loads((tmp_path / "video.json").read_text())
        return case, np.load(tmp_path / "video.npy"), parts, record

    return run


def expected_latents(case):
    if "latents" in case.outputs:
        return [case.outputs["latents"][None]]
    return [case.outputs[name] for name in sorted(case.outputs) if name.startswith("latents_decoded_")]


def assert_equal(case, frames, latents):
    expected = expected_latents(case)
    assert len(latents) == len(expected)
    for made, wanted in zip(latents, expected, strict=True):
        assert made.shape == wanted.shape
        assert (made - wanted).norm() <= 1e-4 * wanted.norm()
    if "video_uint8" in case.outputs:
        assert_same_frames(frames, case.outputs["video_uint8"])


def assert_same_frames(frames, wanted):
    assert frames.shape == wanted.shape
    difference = np.abs(frames.astype(int) - wanted.numpy().astype(int))
    assert difference.max() <= 2
    assert difference.mean() <= 0.05


@pytest.mark.parametrize("name", PLAIN)
def test_as_published(published, name):
    case, frames, latents, _ = published(name)
    assert_equal(case, frames, latents)


@pytest.mark.parametrize("name", NOISY)
def test_noise_on_known_frames(published, monkeypatch, golden, name):
    """The published code draws it from an unseeded generator; here are its draws."""
    draws = iter(golden(f"skyreels_v2/{name}").outputs["addnoise_draws"])
    monkeypatch.setattr(ConditionNoise, "draw", lambda self, like: next(draws)[None])
    case, frames, latents, _ = published(name)
    assert_equal(case, frames, latents)
    assert next(draws, None) is None


@pytest.fixture
def decisions(monkeypatch):
    """Of every call of the transformer, whether it was computed."""
    made = []

    def decide(self, branch, measure):
        decision = original(self, branch, measure)
        made.append(int(decision.computed))
        return decision

    original = Counting.decide
    monkeypatch.setattr(Counting, "decide", decide)
    return made


@pytest.mark.parametrize("name", TEACACHE)
def test_teacache(published, decisions, name):
    case, frames, latents, record = published(name)
    assert_equal(case, frames, latents)
    assert decisions == case.about["computed_by_call"]
    assert record["teacache"] == {"computed": sum(decisions), "skipped": decisions.count(0)}


def test_teacache_over_segments(published, decisions, monkeypatch, golden):
    draws = iter(golden("skyreels_v2/teacache_df_long").outputs["addnoise_draws"])
    monkeypatch.setattr(ConditionNoise, "draw", lambda self, like: next(draws)[None])
    case, frames, latents, _ = published("teacache_df_long")
    assert_equal(case, frames, latents)
    assert decisions == case.about["computed_by_call"]


def test_a_start_image_before_blocks(published, monkeypatch):
    """Published: one image is less than a block, so it counts as noise and is denoised away. Here it stays.

    Nothing else differs: with the image's frame handed to the solver the published numbers come out.
    """
    name = "df_async_i2v_blockN_quirk"
    case, _, (latents,), _ = published(name)
    wanted = case.outputs["latents_decoded_0"]
    torch.testing.assert_close(latents[:, :, :1], case.outputs["vae_encode_0_out"], atol=1e-5, rtol=0)
    assert (latents[:, :, 1:] - wanted[:, :, 1:]).norm() > 0.1 * wanted.norm()
    monkeypatch.setattr(
        diffusion_forcing, "FrameSolver", lambda make, rows, known: FrameSolver(make, rows, known=0)
    )
    _, frames, latents, _ = published(name, "--overwrite")
    assert_equal(case, frames, latents)


def test_an_end_image_after_segments(published):
    """Published: the end image's latent frame is decoded too, four frames too many. Here it is dropped."""
    case, frames, latents, _ = published("df_long_end_quirk")
    first, second = expected_latents(case)
    for made, wanted in zip(latents, (first, second[:, :, :-1]), strict=True):
        assert (made - wanted).norm() <= 1e-4 * wanted.norm()
    assert len(frames) == case.about["args"]["num_frames"]
    assert_same_frames(frames, case.outputs["video_uint8"][: len(frames)])


def test_the_condition_noise_follows_the_seed(published, golden):
    """Published: unseeded. Here: of its own generator, so that a seed is enough to repeat a video."""
    case, _, (latents,), _ = published("df_sync_i2v_addnoise")
    _, _, (again,), _ = published("df_sync_i2v_addnoise", "--overwrite")
    assert torch.equal(latents, again)
    wanted = case.outputs["latents_decoded_0"]
    assert 1e-4 < (latents - wanted).norm() / wanted.norm() < 0.05  # other draws, same method
    clean = golden("skyreels_v2/df_sync_i2v").outputs["latents_decoded_0"]
    assert (latents - clean).norm() > 1e-3 * clean.norm()


def test_only_the_new_frames(published):
    case, frames, _, record = published("df_extend_async", "--new_frames_only")
    assert_same_frames(frames, case.outputs["video_uint8"][-len(frames) :])
    assert len(frames) == record["num_frames"] == 33 - 9


def test_timestep_matrix(golden):
    for record in golden("skyreels_v2/df_timestep_matrix").about["records"]:
        asked = dict(record["params"])
        steps, shift, frames = asked.pop("steps"), asked.pop("shift"), asked.pop("num_frames")
        rows = forcing_rows(
            *(frames, steps),
            **{"ar_step": asked["ar_step"], "block": asked["block"]},
            **{"ready": asked["pre"], "base": asked["base"]},
        )
        if record.get("error"):
            assert rows == []
            continue
        assert unipc(steps, shift).timesteps.tolist() == record["timesteps"]
        assert [list(row.indices) for row in rows] == record["step_index"], asked
        assert [[int(moves) for moves in row.update] for row in rows] == record["update_mask"], asked
        assert [list(row.window) for row in rows] == record["valid_interval"], asked


def test_windows_too_small_for_the_steps():
    with pytest.raises(ValueError, match="ar_step 1 must be at least 3"):
        forcing_rows(10, 6, ar_step=1, base=2)


def test_scheduler(golden):
    case = golden("skyreels_v2/scheduler_unipc")
    for combo in case.about["combos"]:
        part = {
            name: case.outputs[f"{combo['index']}_{name}"] for name in ("timesteps", "sigmas", "A", "traj")
        }
        solver = unipc(combo["steps"], combo["shift"])
        assert torch.equal(solver.timesteps, part["timesteps"])
        torch.testing.assert_close(solver.sigmas, part["sigmas"], atol=1e-6, rtol=0)
        x = part["traj"][0]
        for t, wanted in zip(solver.timesteps, part["traj"][1:], strict=True):
            velocity = torch.einsum("ij,bjthw->bithw", part["A"], x) + torch.sin(3 * x) * (t / 1000)
            x = solver.step(velocity, t, x)
            assert (x - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("block", [1, 2, 3])
def test_block_causal_attention(golden, block):
    case = golden("skyreels_v2/transformer_df_causal")
    folder = FOLDER / "checkpoint-SkyReels-V2-DF-1.3B-540P"
    model: WanDiT = load_component("transformer", folder)
    x = case.inputs
    with torch.no_grad():
        (made,) = model(
            x["x"],
            x["t"],
            x["context"],
            fps=torch.tensor([1]),
            visible_frames=visible_frames(x["x"].shape[2], block),
            return_dict=False,
        )
    wanted = case.outputs[f"out_block{block}"]
    assert (made - wanted).norm() <= 1e-5 * wanted.norm()


def test_crop(golden):
    for record in golden("skyreels_v2/resizecrop").about["records"]:
        width, height = record["image_w"], record["image_h"]
        y, x = np.indices((height, width))
        place = np.stack([x >> 4, y >> 4, (x & 15) << 4 | (y & 15)], axis=-1).astype(np.uint8)
        cropped = crop_to_ratio(Image.fromarray(place), record["target_w"], record["target_h"])
        assert cropped.size == (record["out_w"], record["out_h"])
        for (r, g, b), (left, top) in (
            (cropped.getpixel((0, 0)), record["first_pixel_xy"]),
            (cropped.getpixel((cropped.width - 1, cropped.height - 1)), record["last_pixel_xy"]),
        ):
            inside = 0 <= left < width and 0 <= top < height
            assert (r << 4 | b >> 4, g << 4 | b & 15) == ((left, top) if inside else (0, 0))


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 1, 3])
def test_clip_preprocessing(golden, index):
    case = golden("skyreels_v2/clip_preprocess")
    folder = FOLDER / "checkpoint-SkyReels-V2-I2V-14B-540P"
    arch = json.loads((folder / "tiny_arch.json").read_text())["clip"]
    encoder = load_component("image_encoder", folder / CLIP, arch=arch)
    height, width = case.about["targets_h_w"][index]
    cropped = crop_to_ratio(Image.open(case.folder / f"source{index}.png").convert("RGB"), width, height)
    assert np.array_equal(np.asarray(cropped), case.outputs[f"cropped_{index}"])
    pixels = image_tensor(cropped.resize((width, height), Image.Resampling.LANCZOS))[None]
    if f"preprocessed_{index}" in case.outputs:
        torch.testing.assert_close(pixels, case.outputs[f"preprocessed_{index}"], atol=1e-5, rtol=0)
    wanted = case.outputs[f"clip_features_{index}"]
    assert (clip_features(encoder, pixels) - wanted).norm() <= 1e-4 * wanted.norm()


def test_the_condition_of_image_to_video(golden):
    """Mask and latents beside the noise, and what CLIP says."""
    from videogen.engine.load import load

    case = golden("skyreels_v2/i2v_e2e")
    pipeline = load("image_to_video", str(FOLDER / "checkpoint-SkyReels-V2-I2V-14B-540P"), dtype="float32")
    image = crop_to_ratio(Image.open(case.folder / "source.png").convert("RGB"), 64, 48)
    first = image_tensor(image.resize((64, 48), Image.Resampling.LANCZOS))[None]
    with torch.no_grad():
        made = pipeline.encode_ends(first[:, :, None], None, 13)
    assert (made - case.outputs["y"]).norm() <= 1e-4 * case.outputs["y"].norm()
    assert functional.mse_loss(made[:, :4], case.outputs["y"][:, :4]) == 0
