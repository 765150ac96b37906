"""HunyuanVideo-I2V on the command line: sizes, seeds, defaults, what is refused."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.conftest import GOLDEN, REFS

PREFIX, DOWN, UP = "Hunyuan_video_I2V_lora_", ".lora_down.weight", ".lora_up.weight"

CHECKPOINT = GOLDEN / "hunyuan/checkpoint-A"
WEIGHTS = "hunyuan-video-i2v-720p/transformers/mp_rank_00_model_states.pt"
CONCAT = GOLDEN / "hunyuan/checkpoint-A-latent_concat" / WEIGHTS


def words(*more):
    """The shortest command on the tiny model, without an output; what is given twice counts last."""
    return [
        *("--task_type", "hunyuan_image_to_video", "--model_id", "tiny", "--prompt", "a balloon rises"),
        *("--input_image", REFS / "balloon.png", "--height", 32, "--width", 48, "--num_frames", 5),
        *("--num_inference_steps", 2, "--device", "cpu", *(() if "--seed" in more else ("--seed", 3)), *more),
    ]


def planned(cli, tmp_path, *more):
    finished = cli(*words("--output", tmp_path / "x.mp4", "--dry_run", "--json", *more))
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


@pytest.mark.parametrize(
    ("flags", "shift", "stable"),
    [((), 7, True), (("--no_i2v_stability",), 17, False), (("--no_i2v_stability", "--shift", 5), 5, False)],
)
def test_the_shift_goes_with_stability(cli, tmp_path, flags, shift, stable):
    request = planned(cli, tmp_path, *flags)["request"]
    assert (request["shift"], request["i2v_stability"]) == (shift, stable)
    assert request["embedded_cfg_scale"] == 6


@pytest.mark.slow
def test_switches_change_the_video(cli, tmp_path):
    made = set()
    for flags in (
        (),
        ("--no_i2v_stability",),
        ("--embedded_cfg_scale", 1),
        ("--guidance_scale", 3),
        ("--prompt", "fog"),
    ):
        assert cli(*words("--output", tmp_path / "a.npy", "--overwrite", *flags)).code == 0
        made.add(np.load(tmp_path / "a.npy").tobytes())
    assert len(made) == 5


def test_the_image_beside_the_noise(cli, tmp_path):
    concat = ("--model_id", "tiny:hunyuan-latent-concat", "--num_frames", 9)
    plan = planned(cli, tmp_path, *concat)
    assert (plan["num_frames"], plan["latent_shape"]) == (5, [1, 16, 3, 4, 6])
    assert "embedded_cfg_scale" not in plan["request"]
    assert plan["request"]["i2v_condition_type"] == "latent_concat"
    finished = cli(
        *words("--model_id", "tiny:hunyuan-latent-concat", "--num_frames", 9, "--output", tmp_path / "a.npy")
    )
    assert finished.code == 0, finished.err
    assert np.load(tmp_path / "a.npy").shape == (5, 32, 48, 3)


@pytest.mark.parametrize(
    ("image", "resolution", "size"),
    [
        ((1280, 720), "720P", (1248, 704)),
        ((1280, 720), "360P", (608, 352)),
        ((1024, 1024), "540P", (704, 704)),
    ],
)
def test_sizes_follow_the_image(cli, tmp_path, image, resolution, size):
    Image.new("RGB", image).save(tmp_path / "image.png")
    finished = cli(
        *("--task_type", "hunyuan_image_to_video", "--prompt", "x", "--input_image", tmp_path / "image.png"),
        *("--resolution", resolution, "--dry_run", "--json", "--output", tmp_path / "x.mp4"),
    )
    plan = json.loads(finished.out)
    assert (plan["width"], plan["height"], plan["num_frames"], plan["fps"]) == (*size, 129, 24)


def test_several_videos_count_seeds_up(cli, tmp_path):
    finished = cli(*words("--num_videos", 2, "--output_dir", tmp_path))
    assert finished.code == 0, finished.err
    assert [path.name for path in finished.paths] == ["1_3.mp4", "2_4.mp4"]
    given = cli(*words("--num_videos", 2, "--seed", "8,5", "--output_dir", tmp_path / "more"))
    assert [path.name for path in given.paths] == ["1_8.mp4", "2_5.mp4"]


def test_a_video_does_not_depend_on_the_one_before(cli, tmp_path):
    assert cli(*words("--seed", "3,4", "--output", tmp_path / "{seed}.npy")).code == 0
    assert cli(*words("--seed", "4", "--output", tmp_path / "alone.npy")).code == 0
    assert np.array_equal(np.load(tmp_path / "4.npy"), np.load(tmp_path / "alone.npy"))


def test_long_videos_have_other_positions(cli, tmp_path):
    long = ("--num_frames", 193, "--height", 16, "--width", 16, "--num_inference_steps", 1)
    frames = []
    for name, more in (("riflex", ()), ("plain", ("--no_riflex",))):
        finished = cli(*words(*long, *more, "--output", tmp_path / f"{name}.npy"))
        assert finished.code == 0, finished.err
        frames.append(np.load(tmp_path / f"{name}.npy"))
    assert frames[0].shape == (193, 16, 16, 3)
    assert not np.array_equal(*frames)


def test_the_image_is_in_the_noise(cli, tmp_path):
    """The 0.001 share of it, at the same shift."""
    for name in ("i2v_stability", "no_i2v_stability"):
        assert cli(*words("--shift", 7, f"--{name}", "--output", tmp_path / f"{name}.npy")).code == 0
    frames = [np.load(tmp_path / f"{name}.npy") for name in ("i2v_stability", "no_i2v_stability")]
    assert not np.array_equal(*frames)


def test_the_other_published_model_is_known_for_what_it_is(cli, tmp_path):
    name = "hunyuanvideo-community/HunyuanVideo-I2V-33ch"
    asked = ("--i2v_condition_type", "latent_concat", "--num_frames", 9)
    plan = planned(cli, tmp_path, "--model_id", name, *asked)
    assert plan["num_frames"] == 5
    assert "embedded_cfg_scale" not in plan["request"]


def test_the_same_twice_and_from_metadata(cli, tmp_path):
    assert cli(*words("--output", tmp_path / "a.npy", "--no_i2v_stability")).code == 0
    again = cli(
        *("--from_metadata", tmp_path / "a.json", "--input_image", REFS / "balloon.png", "--device", "cpu"),
        *("--output", tmp_path / "b.npy"),
    )
    assert again.code == 0, again.err
    assert "warning: " not in again.err  # recorded defaults are nobody's wish
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    asked = cli(
        "--from_metadata",
        tmp_path / "a.json",
        "--input_image",
        REFS / "balloon.png",
        "--dry_run",
        "--negative_prompt",
        "fog",
        "--output",
        tmp_path / "c.npy",
    )
    assert "--negative_prompt has no effect" in asked.err


def test_positions_that_cannot_be_slowed_down(cli, tmp_path):
    """The golden checkpoint has two temporal frequencies, and RIFLEx would slow the fourth."""
    size = ("--height", 16, "--width", 16, "--num_frames", 193, "--num_inference_steps", 1)
    finished = cli(*words("--model_id", CHECKPOINT, *size, "--output", tmp_path / "x.npy"))
    assert finished.code == 0, finished.err
    assert (
        "warning: RIFLEx changes nothing: it needs 4 temporal frequencies, and the model has 2"
        in finished.err
    )


def test_help_says_how_many_videos(cli):
    text = " ".join(cli("--task_type", "hunyuan_image_to_video", "--help").out.split())
    assert "--num_videos N how many videos, each with the next seed (default 1)" in text


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(CHECKPOINT, tmp_path / "model")


def refused(cli, tmp_path, code, message, *more):
    finished = cli(*words("--output", tmp_path / "x.mp4", *more))
    assert finished.code == code, finished.err
    assert re.search(message, finished.complaint), finished.complaint


@pytest.mark.parametrize(("asked", "channels"), [("latent_concat", 16), ("token_replace", 33)])
def test_weights_of_the_other_kind(cli, tmp_path, folder, asked, channels):
    if channels == 33:
        shutil.copy(CONCAT, folder / WEIGHTS)
    message = f"--i2v_condition_type {asked}: the weights of model have {channels} input channels"
    refused(cli, tmp_path, 2, message, "--model_id", folder, "--i2v_condition_type", asked)


def test_an_embedded_scale_without_its_embedding(cli, tmp_path, folder):
    shutil.copy(CONCAT, folder / WEIGHTS)
    message = "--embedded_cfg_scale 6: this model has no embedding for it"
    refused(cli, tmp_path, 2, message, "--model_id", folder, "--embedded_cfg_scale", 6)


def test_a_repository_that_lacks_half_of_the_model(cli, tmp_path):
    refused(
        cli,
        tmp_path,
        3,
        "tencent/HunyuanVideo-I2V: lacks the text encoders",
        "--model_id",
        "tencent/HunyuanVideo-I2V",
    )


def test_a_folder_that_other_models_share(cli, tmp_path, folder):
    (folder / "text_encoder").mkdir()
    assert planned(cli, tmp_path, "--model_id", folder)["model"]["layout"] == "HunyuanVideo-I2V"


def test_without_tiles_the_estimate_says_so(cli, tmp_path):
    name = "hunyuanvideo-community/HunyuanVideo-I2V"
    needed = [
        planned(
            *(cli, tmp_path, "--model_id", name, "--vae_tiling", mode),
            *("--height", 704, "--width", 1248, "--num_frames", 129),
        )
        for mode in ("auto", "off")
    ]
    auto, off = (plan["memory_bytes"]["plain"] for plan in needed)
    assert auto < 80e9
    assert off > 1.5 * auto


def test_both_switches_at_once(cli, tmp_path):
    refused(cli, tmp_path, 2, "--i2v_stability: not together with", "--i2v_stability", "--no_i2v_stability")


@pytest.mark.parametrize("options", [(), ("--low_vram",)])
def test_a_lora_on_float8_weights(cli, tmp_path, folder, options):
    published = torch.load(folder / WEIGHTS, weights_only=True)["module"]
    scales = {}
    for name, weight in published.items():
        if "_blocks." in name and name.endswith(".weight") and weight.ndim == 2:
            scales[name.removesuffix(".weight")] = scale = weight.abs().max() / 448
            published[name] = (weight / scale).to(torch.float8_e4m3fn)
    torch.save({"module": published}, (folder / WEIGHTS).with_name("mp_rank_00_model_states_fp8.pt"))
    torch.save(scales, (folder / WEIGHTS).with_name("mp_rank_00_model_states_fp8_map.pt"))
    (folder / WEIGHTS).unlink()
    layer = f"{PREFIX}double_blocks_0_img_mlp_fc2"
    lora = tmp_path / "lora.safetensors"
    save_file({layer + UP: torch.full((48, 2), 0.123), layer + DOWN: torch.full((2, 96), 0.123)}, lora)
    frames = []
    for more in ((), ("--lora", lora)):
        model = ("--model_id", folder, *options)
        finished = cli(*words("--output", tmp_path / "a.npy", "--overwrite", *model, *more))
        assert finished.code == 0, finished.err
        frames.append(np.load(tmp_path / "a.npy"))
    assert not np.array_equal(*frames)


@pytest.mark.parametrize("missing", ["text_encoder_i2v", "text_encoder_2"])
def test_a_missing_text_encoder(cli, tmp_path, folder, missing):
    shutil.rmtree(folder / missing)
    refused(cli, tmp_path, 3, f"incomplete HunyuanVideo-I2V folder; missing {missing}/", "--model_id", folder)


def test_float8_weights_without_scales(cli, tmp_path, folder):
    (folder / WEIGHTS).rename((folder / WEIGHTS).with_name("mp_rank_00_model_states_fp8.pt"))
    message = "missing hunyuan-video-i2v-720p/transformers/mp_rank_00_model_states_fp8_map.pt$"
    refused(cli, tmp_path, 3, message, "--model_id", folder, "--dry_run")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        *((6, "must be 4k.1; nearest 5 or 9"), (2, "must be 4k.1; nearest 5$"), (1, "at least 5")),
        (0, "for example 5"),
    ],
)
def test_a_wrong_number_of_frames(cli, tmp_path, frames, message):
    refused(cli, tmp_path, 2, f"--num_frames {frames}: .*{message}", "--num_frames", frames)


def test_seeds_that_do_not_fit(cli, tmp_path):
    refused(cli, tmp_path, 2, "--seed 1,2: 2 seeds; 1 or 3 can be given", "--num_videos", 3, "--seed", "1,2")


Q = "double_blocks_0_img_attn_qkv"
BAD_LORAS = {
    "published names": ({f"{PREFIX}nowhere{x}": (2, 2) for x in (UP, DOWN)}, "0 of its 1 layers belong"),
    "another model's": (
        *({f"transformer.blocks.0.attn1.to_q.lora_{x}.weight": (2, 2) for x in "AB"},),
        "0 of its 1 layers belong to this model",
    ),
    "no lora": ({"unrelated.0": (2, 2), "unrelated.1": (2, 2)}, "0 of its 2 tensors belong to this model"),
    "columns": (
        *({PREFIX + Q + DOWN: (2, 47), PREFIX + Q + UP: (144, 2)},),
        rf"{Q}.lora_down.weight is \[2, 47\], expected \[2, 48\]",
    ),
    "rows": (
        *({PREFIX + Q + DOWN: (2, 48), PREFIX + Q + UP: (143, 2)},),
        rf"{Q}.lora_up.weight is \[143, 2\], expected \[144, 2\]",
    ),
    "half": ({PREFIX + Q + DOWN: (2, 48)}, f"{Q} has a lora_down and no lora_up"),
}


@pytest.mark.parametrize("case", BAD_LORAS)
def test_a_lora_that_does_not_fit(cli, tmp_path, case):
    """One line, before anything is loaded."""
    shapes, message = BAD_LORAS[case]
    file = tmp_path / "lora.safetensors"
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, file)
    more = ("--model_id", CHECKPOINT, "--lora", file, "--output", tmp_path / "x.mp4")
    finished = cli(*words(*more))
    assert finished.code == 3
    assert re.fullmatch(f"error: --lora {re.escape(str(file))}: .*{message}.*\n", finished.err), finished.err
    assert cli(*words(*more, "--dry_run")).err == finished.err


def test_a_lora_for_a_tiny_model_that_is_not_built(cli, tmp_path, monkeypatch):
    """What could not be judged at the start is judged before the weights are read."""
    monkeypatch.setenv("VIDEOGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("videogen.engine.load.load_pipeline", lambda *_: pytest.fail("loaded"))
    save_file({f"{PREFIX}nowhere{x}": torch.ones(2, 2) for x in (UP, DOWN)}, tmp_path / "lora.safetensors")
    refused(cli, tmp_path, 3, "0 of its 1 layers belong", "--lora", tmp_path / "lora.safetensors")


def test_a_lora_of_which_a_part_fits(cli, tmp_path):
    shapes = {
        f"transformer.transformer_blocks.{block}.attn.to_q.lora_{x}.weight": shape
        for block in (0, 99)
        for x, shape in (("A", (2, 48)), ("B", (48, 2)))
    }
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, tmp_path / "l.safetensors")
    model = ("--model_id", CHECKPOINT)
    finished = cli(*words(*model, "--lora", tmp_path / "l.safetensors", "--output", tmp_path / "x.npy"))
    assert finished.code == 0, finished.err
    warnings = [line for line in finished.err.splitlines() if line.startswith("warning: ")]
    assert warnings == ["warning: --lora l.safetensors: 1 of its 2 layers are this model's"]


def test_a_lora_changes_the_video(cli, tmp_path):
    layer = f"{PREFIX}double_blocks_0_img_mlp_fc2"
    save_file(
        {layer + UP: torch.ones(64, 2), layer + DOWN: torch.ones(2, 128)}, tmp_path / "lora.safetensors"
    )
    frames = []
    for more in (
        (),
        ("--lora", tmp_path / "lora.safetensors"),
        ("--lora", f"{tmp_path / 'lora.safetensors'}:0"),
    ):
        finished = cli(*words("--output", tmp_path / "a.npy", "--overwrite", *more))
        assert finished.code == 0, finished.err
        frames.append(np.load(tmp_path / "a.npy"))
    assert not np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[2])


def test_a_lora_in_the_names_of_diffusers(cli, tmp_path):
    layer = "transformer.transformer_blocks.0.ff.net.2"
    pair = {f"{layer}.lora_A.weight": torch.ones(2, 128), f"{layer}.lora_B.weight": torch.ones(64, 2)}
    save_file(pair, tmp_path / "lora.safetensors")
    published = f"{PREFIX}double_blocks_0_img_mlp_fc2"
    save_file(
        {published + UP: torch.ones(64, 2), published + DOWN: torch.ones(2, 128)}, tmp_path / "k.safetensors"
    )
    frames = []
    for name in ("lora", "k"):
        finished = cli(
            *words("--output", tmp_path / f"{name}.npy", "--lora", tmp_path / f"{name}.safetensors")
        )
        assert finished.code == 0, finished.err
        frames.append(np.load(tmp_path / f"{name}.npy"))
    assert np.array_equal(*frames)


def test_a_broken_weight_file(cli, tmp_path, folder):
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    message = "mp_rank_00_model_states.pt: broken or truncated"
    refused(cli, tmp_path, 3, message, "--model_id", folder, "--dry_run")


def test_the_folder_below_the_model(cli, tmp_path, folder):
    below = folder / "hunyuan-video-i2v-720p"
    refused(cli, tmp_path, 3, f"nearest {folder}$", "--model_id", below)
    refused(
        cli, tmp_path, 3, f"is not a model folder; nearest {folder}$", "--model_id", below / "transformers"
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    refused(cli, tmp_path, 3, "needs hunyuan-video-i2v-720p/transformers/", "--model_id", other)


def test_what_has_no_effect_or_is_left_out_is_said(cli, tmp_path):
    finished = cli(*words("--no_riflex", "--dry_run", "--output", tmp_path / "x.mp4"))
    assert "--no_riflex has no effect on videos of 192 frames or less" in finished.err
    concat = ("--model_id", "tiny:hunyuan-latent-concat", "--num_frames", 9)
    finished = cli(*words(*concat, "--dry_run", "--output", tmp_path / "x.mp4"))
    assert "the first 4 frames stand for the image and are left out" in finished.err
