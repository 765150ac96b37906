"""Wan2.2 end to end, through the command line, against the published pipelines."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import GOLDEN
from videogen.media.image import cover
from videogen.tasks.families.wan22 import covered_size
from videogen.tasks.geometry import area_size

FOLDER = GOLDEN / "wan22"
TASKS = {
    "i2v_a14b_unipc": "image_to_video",
    "i2v_a14b_dpmpp": "image_to_video",
    "t2v_a14b_unipc": "text_to_video",
    "ti2v_5b_i2v_unipc": "image_to_video",
    "ti2v_5b_t2v_unipc": "text_to_video",
    "v2v_14b": "v2v-14B",
    "v2v_5b": "v2v-5B",
}


def checkpoint(name, tmp_path):
    """A checkpoint's folder; one borrows its VAE, which its latents do not depend on."""
    if name != "checkpoint-t2v-a14b":
        return FOLDER / name
    copy = shutil.copytree(FOLDER / name, tmp_path / name)
    shutil.copy(FOLDER / "checkpoint-i2v-a14b/Wan2.1_VAE.pth", copy)
    return copy


@pytest.mark.parametrize("name", TASKS)
def test_as_published(cli, golden, tmp_path, name):
    case = golden(f"wan22/{name}")
    asked, wanted = case.about["generate_args"], case.outputs["final_latent"]
    stride = 16 if "5b" in name else 8
    scale = asked["guide_scale"]
    words = []
    if (case.folder / "image.png").exists():
        words += ["--image", case.folder / "image.png"]
    if "video" in case.about:
        words += ["--video", case.folder / case.about["video"]]
    finished = cli(
        *(
            "--task",
            TASKS[name],
            "--ckpt_dir",
            checkpoint(case.about["checkpoint"].removeprefix("../"), tmp_path),
        ),
        *(
            "--prompt",
            asked["prompt"],
            "--frame_num",
            asked["frame_num"],
            "--base_seed",
            asked["seed"],
            *words,
        ),
        *("--height", wanted.shape[-2] * stride, "--width", wanted.shape[-1] * stride),
        *("--sample_steps", asked["sampling_steps"], "--sample_shift", asked["shift"]),
        *("--sample_solver", asked["sample_solver"], "--device", "cpu", "--dtype", "float32"),
        *("--sample_guide_scale", ",".join(map(str, scale)) if isinstance(scale, list) else scale),
        *("--output", tmp_path / "video.npy", "--save_latents", tmp_path / "latents.safetensors"),
    )
    assert finished.code == 0, finished.err
    made = load_file(tmp_path / "latents.safetensors")["latents"][0]
    torch.testing.assert_close(made, wanted, atol=2e-4, rtol=0)
    if "frames_uint8" in case.outputs:
        frames, published = np.load(tmp_path / "video.npy"), case.outputs["frames_uint8"].numpy()
        difference = np.abs(frames.astype(int) - published.astype(int))
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.01


def test_sizes(golden):
    for row in golden("wan22/size_selection").about["rows"]:
        fit = area_size if "A14B" in row["model"] else covered_size
        assert fit(row["max_area"], row["image_w"], row["image_h"]) == (row["H"], row["W"]), row


def test_cover(golden):
    """Where the middle of a 5B input lies, by a picture whose colours say where a pixel was."""
    for row in golden("wan22/size_selection").about["rows"]:
        if "crop_x" not in row or row["image_w"] * row["image_h"] > 2_000_000:
            continue
        gradient = Image.linear_gradient("L").rotate(90).resize((row["image_w"], row["image_h"]))
        made = cover(gradient.convert("RGB"), row["W"], row["H"])
        whole = gradient.resize((row["resized_w"], row["resized_h"]), Image.Resampling.LANCZOS).convert("RGB")
        box = (row["crop_x"], row["crop_y"], row["crop_x"] + row["W"], row["crop_y"] + row["H"])
        assert made.size == (row["W"], row["H"])
        assert np.abs(np.asarray(made, int) - np.asarray(whole.crop(box), int)).max() <= 1


def test_images_too_narrow_for_5b():
    with pytest.raises(ValueError, match="too narrow"):
        covered_size(704 * 1280, 20000, 10)
