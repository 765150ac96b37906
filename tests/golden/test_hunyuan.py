"""HunyuanVideo-I2V against the published code: whole videos through the command line, and its parts."""

import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDEN
from videogen.checkpoints import lora
from videogen.checkpoints.networks.hunyuan import DIT
from videogen.diffusion.sampling import euler
from videogen.errors import CheckpointError
from videogen.media.image import crop_bilinear
from videogen.models import lora_weights
from videogen.models.components import load_component
from videogen.models.hunyuan import text, transformer
from videogen.models.wan.vae import onload
from videogen.models.weight_loader import Entry, rename
from videogen.pipelines.pixels import image_tensor
from videogen.planning.seeds import video_seeds
from videogen.tasks.families.hunyuan import crop_size, crop_sizes

PREFIX, DOWN, UP = lora.UNSCALED[0], ".lora_down.weight", ".lora_up.weight"

CHECKPOINT = GOLDEN / "hunyuan/checkpoint-A"
WEIGHTS = "hunyuan-video-i2v-720p/transformers/mp_rank_00_model_states.pt"
CPU = torch.device("cpu")
ARCH = {"rope_dim_list": [4, 10, 10]}
CASES = (
    *("e2e_token_replace_stability", "e2e_token_replace_cfg"),
    *("e2e_latent_concat", "e2e_latent_concat_nostab_cfg"),
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The folder of a conditioning mode; the two share all but the transformer."""
    other = tmp_path_factory.mktemp("hunyuan") / "latent_concat"
    shutil.copytree(CHECKPOINT, other)
    shutil.copy(GOLDEN / "hunyuan/checkpoint-A-latent_concat" / WEIGHTS, other / WEIGHTS)
    return {"token_replace": CHECKPOINT, "latent_concat": other}


@pytest.mark.parametrize("name", CASES)
def test_whole_videos(cli, golden, checkpoint, tmp_path, name):
    case = golden(f"hunyuan/{name}")
    asked, (height, width) = case.about["arguments"], case.about["target_height_width"]
    flags = {
        **{"height": height, "width": width, "video_length": asked["frames"], "infer_steps": asked["steps"]},
        **{"cfg_scale": asked["cfg"], "flow_shift": asked["flow_shift"]},
        **{"seed": asked["seed"], "prompt": asked["prompt"], "i2v_condition_type": asked["condition"]},
        **({"embedded_cfg_scale": asked["embedded"]} if asked["embedded"] else {}),
        **({"negative_prompt": asked["neg"]} if "neg" in asked else {}),
    }
    finished = cli(
        *("--task_type", "hunyuan_image_to_video", "--model_id", checkpoint[asked["condition"]]),
        *(
            "--input_image",
            case.folder / "image.png",
            *(f"--{flag}={value}" for flag, value in flags.items()),
        ),
        *("--device", "cpu", "--dtype", "float32", "--noise_device", "cpu"),
        "--i2v_stability" if asked["stability"] else "--no_i2v_stability",
        *("--output", tmp_path / "a.npy", "--save_latents", tmp_path / "a.safetensors"),
    )
    assert finished.code == 0, finished.err
    latents = load_file(tmp_path / "a.safetensors")["latents"]
    wanted = case.outputs[f"latents_after_step_{asked['steps'] - 1}"]
    torch.testing.assert_close(latents, wanted, atol=2e-4, rtol=2e-4)
    frames, published = np.load(tmp_path / "a.npy"), case.outputs["video_uint8"].numpy()
    assert frames.shape == published.shape
    assert (np.abs(frames.astype(int) - published) <= 1).mean() >= 0.995


def test_nothing_in_a_prompt_is_special():
    """Text that looks like a token of the template is text."""
    tokenizer = load_component("tokenizer", CHECKPOINT / "text_encoder_i2v")
    for word in ("<image>", "<|end_header_id|>", "<pad>"):
        token = tokenizer.convert_tokens_to_ids(word)
        ids, _ = text.prompt_ids(tokenizer, f"a red ball {word} on a field")
        plain, _ = text.prompt_ids(tokenizer, "a red ball on a field")
        assert (ids == token).sum() == (plain == token).sum()
    long, start = text.prompt_ids(tokenizer, "<|end_header_id|> " + "a cat " * 300)
    assert (long.shape, start) == ((1, 359), 359)


@torch.no_grad()
def test_text_encoders(golden):
    case = golden("hunyuan/text_encoders")
    load = {name: load_component(name, CHECKPOINT / "text_encoder_i2v") for name in ("tokenizer", "llava")}
    processor = load_component("image_processor", CHECKPOINT / "text_encoder_i2v")
    clip = {
        name: load_component(name, CHECKPOINT / "text_encoder_2") for name in ("tokenizer_2", "clip_text")
    }
    image = Image.open(case.folder / "image.png").convert("RGB")

    def check(prompt, seen, interleave, states, mask):
        made = text.encode_prompt(
            load["tokenizer"], processor, load["llava"], prompt, seen, interleave=interleave, device=CPU
        )
        torch.testing.assert_close(made, states[mask > 0][None], atol=1e-4, rtol=1e-4)

    for index, prompt in enumerate(case.about["prompts"]):
        states, mask = (case.outputs[f"{kind}_il4_{index}"] for kind in ("hidden", "mask"))
        check(prompt, image, 4, states, mask)
        summary = text.encode_summary(clip["tokenizer_2"], clip["clip_text"], prompt, device=CPU)
        torch.testing.assert_close(summary, case.outputs[f"clip_pooled_{index}"], atol=1e-5, rtol=1e-5)
    check(case.about["prompts"][0], image, 2, case.outputs["hidden_il2_0"], case.outputs["mask_il2_0"])
    black = Image.new("RGB", image.size)
    negative = case.about["negative_prompt"]
    check(negative, black, 4, case.outputs["neg_hidden_il4"], case.outputs["neg_mask_il4"])


@pytest.fixture(scope="session")
def vae():
    return load_component("hunyuan_vae", CHECKPOINT / "hunyuan-video-i2v-720p/vae")


def test_the_image_is_encoded_untiled_whatever_was_decoded(golden, vae):
    """The published code tiles it from its second video on; here every video is as its first."""
    case = golden("hunyuan/e2e_token_replace_stability")
    image = Image.open(case.folder / "image.png").convert("RGB")
    height, width = case.about["target_height_width"]
    assert max(height, width) > vae.config.sample_size
    pixels = image_tensor(crop_bilinear(image, width, height))[None, :, None]
    for _ in range(2):
        made = transformer.encode_image(vae, pixels, onload)
        torch.testing.assert_close(made, case.outputs["image_latents_scaled"], atol=1e-5, rtol=1e-5)
        list(transformer.decode_stream(vae, made, onload))


@pytest.mark.parametrize("name", ["vae_temporal_tiled"])
def test_decode_in_tiles(golden, vae, name):
    case = golden(f"hunyuan/{name}")
    chunks = list(transformer.decode_stream(vae, case.inputs["z"] * vae.config.scaling_factor, onload))
    assert len(chunks) > 1
    torch.testing.assert_close(torch.cat(chunks, dim=2), case.outputs["decoded"], atol=1e-4, rtol=1e-4)


def test_tiles_of_space_and_time_are_those_of_the_library(vae):
    latents = torch.randn(1, 16, 7, 10, 9)
    vae.use_framewise_decoding = True
    with torch.no_grad():
        wanted = vae.decode(latents).sample
    made = torch.cat(list(transformer.decode_stream(vae, latents * vae.config.scaling_factor, onload)), dim=2)
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)


def test_schedule(golden):
    case = golden("hunyuan/scheduler")
    for spec in case.about["specs"]:
        if spec["reverse"]:
            solver = euler(spec["steps"], spec["shift"], sigma_min=1 / spec["steps"])
            index = spec["index"]
            torch.testing.assert_close(solver.sigmas, case.outputs[f"sigmas_{index}"], atol=1e-6, rtol=0)
            torch.testing.assert_close(
                solver.timesteps, case.outputs[f"timesteps_{index}"], atol=1e-3, rtol=0
            )


def test_positions_and_riflex(golden):
    case = golden("hunyuan/rope")
    for spec in case.about["specs"][1:]:  # the first, plain and small, is not kept
        rope = transformer.RiflexRotaryEmbed(tuple(spec["rope_dim_list"]), 256.0)
        latents = torch.zeros(1, 1, spec["latent_frames"], spec["height"] // 8, spec["width"] // 8)
        made = rope(latents)
        for part, name in enumerate(("cos", "sin")):
            table = made[:, 0, :, part].repeat_interleave(2, dim=1)  # as published: once per channel
            torch.testing.assert_close(table, case.outputs[f"{name}_{spec['index']}"], atol=1e-5, rtol=0)
        rope.riflex = False
        same = torch.equal(rope(latents), made)
        assert same == (spec["riflex_k"] is None)


def test_sizes_and_crops(golden):
    case = golden("hunyuan/buckets")
    bases = {"360p": 480, "540p": 720, "720p": 960}
    for name, sizes in case.about["bucket_lists"].items():
        assert [[height, width] for _, height, width in crop_sizes(bases[name])] == sizes
    for row in case.about["table"]:
        size = crop_size(crop_sizes(bases[row["resolution"]]), row["width"], row["height"])
        assert size == (row["target_height"], row["target_width"]), row
    for index, row in enumerate(case.about["images"]):
        image = Image.open(case.folder / row["image"]).convert("RGB")
        made = image_tensor(crop_bilinear(image, row["target_width"], row["target_height"]))
        torch.testing.assert_close(made, case.outputs[f"pixels_{index}"], atol=1e-6, rtol=0)


def test_seeds(golden):
    for row in golden("hunyuan/seeds").about["table"]:
        given = row["seed"]["tensor"] if isinstance(row["seed"], dict) else row["seed"]
        if row["python_random_seed"] is not None:
            random.seed(row["python_random_seed"])

        def made(given=given, row=row):
            return video_seeds(
                given, row["batch_size"], row["num_videos_per_prompt"], lambda: random.randint(0, 1_000_000)
            )

        if row["error"]:
            with pytest.raises(ValueError, match="seed"):
                made()
        else:
            assert made() == row["seeds"]


def test_lora_is_merged_as_published(tmp_path):
    """W + up @ down in the published layout, alphas ignored, is what the adapter computes."""
    layers = ("double_blocks.0.img_attn_qkv", "double_blocks.1.txt_mlp.fc1", "double_blocks.0.txt_mod.linear")
    layers += ("single_blocks.0.linear1", "single_blocks.1.linear2", "single_blocks.1.modulation.linear")
    layers += ("txt_in.individual_token_refiner.blocks.1.mlp.fc2", "final_layer.adaLN_modulation.1")
    generator = torch.Generator().manual_seed(1)
    published = torch.load(CHECKPOINT / WEIGHTS, weights_only=True)["module"]
    pairs = {}
    for layer in layers:
        rows, columns = published[f"{layer}.weight"].shape
        down, up = (torch.randn(shape, generator=generator) for shape in ((4, columns), (rows, 4)))
        flat = PREFIX + layer.replace(".", "_")
        pairs |= {flat + DOWN: down, flat + UP: up, f"{flat}.alpha": torch.tensor(8.0)}
        published[f"{layer}.weight"] = published[f"{layer}.weight"] + up @ down
    save_file(pairs, tmp_path / "lora.safetensors")
    merged = rename(
        CHECKPOINT, [Entry(k, tuple(v.shape), lambda v=v: v) for k, v in published.items()], [DIT]
    )
    plain = load_component("hunyuan_transformer", (CHECKPOINT / WEIGHTS).parent, arch=ARCH).state_dict()
    state = lora_weights.read(
        tmp_path / "lora.safetensors",
        load_component("hunyuan_transformer", (CHECKPOINT / WEIGHTS).parent, arch=ARCH),
    ).pairs
    for name, weight in plain.items():
        pair = [state.get(f"transformer.{name.removesuffix('.weight')}.lora_{x}.weight") for x in "BA"]
        added = pair[0] @ pair[1] if pair[0] is not None else 0
        torch.testing.assert_close(weight + added, merged[name].read())
    assert len(state) == 2 * (3 + 1 + 1 + 4 + 1 + 1 + 1 + 1)


def test_a_lora_of_another_model(tmp_path):
    model = load_component("hunyuan_transformer", (CHECKPOINT / WEIGHTS).parent, arch=ARCH)
    pair = {f"{PREFIX}elsewhere{part}": torch.ones(2, 2) for part in (UP, DOWN)}
    save_file(pair, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="0 of its 1 layers"):
        lora_weights.read(tmp_path / "lora.safetensors", model)
