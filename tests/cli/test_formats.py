"""Checkpoints as people have them, through the command line: what is read, what is said of the rest."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDEN

MODEL = GOLDEN / "wan22/checkpoint-t2v-a14b"
VAE = GOLDEN / "wan22/checkpoint-i2v-a14b/Wan2.1_VAE.pth"
ENCODER = "models_t5_umt5-xxl-enc-bf16.pth"
EXPERT = "high_noise_model/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(MODEL, tmp_path / "model")
    shutil.copy(VAE, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def make(cli, tmp_path):
    """Run the command line on a model folder."""

    def run(model, *more):
        words = ("--task_type", "text_to_video", "--prompt", "cat", "--num_frames", 5, "--seed", 1)
        size = (
            "--height",
            32,
            "--width",
            32,
            "--num_inference_steps",
            2,
            "--device",
            "cpu",
            "--dtype",
            "float32",
        )
        output = ("--output", tmp_path / "out.npy", "--overwrite")
        return cli(*words, *size, *output, "--model_id", model, *more)

    def frames(model, *more):
        finished = run(model, *more)
        assert finished.code == 0, finished.err
        return np.load(tmp_path / "out.npy")

    run.frames = frames
    return run


def scaled(file, prefix="model.diffusion_model."):
    """Return an expert in scaled float8, and the numbers that it stands for."""
    stored, plain = {}, {}
    for name, weight in load_file(file).items():
        stored[prefix + name] = plain[name] = weight
        if weight.ndim == 2 and name.startswith("blocks."):
            scale = weight.abs().max() / 448
            stored[prefix + name] = (weight / scale).to(torch.float8_e4m3fn)
            stored[prefix + name.removesuffix("weight") + "scale_weight"] = scale
            plain[name] = stored[prefix + name].float() * scale
    return {**stored, prefix + "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, plain


def test_scaled_float8_in_a_folder_and_as_a_file(make, folder, tmp_path):
    stored, plain = scaled(folder / EXPERT)
    file = tmp_path / "wan_high_fp8_scaled.safetensors"
    save_file(stored, file)
    from_file = make.frames(folder, "--transformer", f"{file}:high")
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["request"]["transformer"] == [f"{file.name}:high"]
    assert record["model"]["replaced"]["transformer"]["name"] == file.name
    assert len(record["model"]["replaced"]["transformer"]["sha256"]) == 64
    (folder / EXPERT).unlink()
    assert np.array_equal(make.frames(folder, "--transformer", f"{file}:high"), from_file)  # it is not needed
    save_file(plain, folder / EXPERT)
    assert np.array_equal(make.frames(folder), from_file)
    (folder / EXPERT).unlink()
    shutil.copy(file, folder / "high_noise_model")
    assert np.array_equal(make.frames(folder), from_file)


def test_the_hash_follows_the_content_of_a_file(make, folder, tmp_path):
    def hash_of():
        words = ("--transformer", f"{file}:high", "--dry_run", "--json")
        return json.loads(make(folder, *words).out)["plan_hash"]

    tensors, file = load_file(folder / EXPERT), tmp_path / "file.safetensors"
    shutil.copy(folder / EXPERT, file)
    first = hash_of()
    file = file.rename(tmp_path / "renamed.safetensors")
    assert hash_of() == first
    tensors["blocks.0.ffn.0.weight"][3, 3] += 1
    save_file(tensors, file)
    assert hash_of() != first


def test_both_experts_text_encoder_and_vae(make, folder):
    wanted = make.frames(folder)
    experts = (f"{MODEL / EXPERT}:high", f"{MODEL / EXPERT.replace('high', 'low')}:low")
    given = [word for expert in experts for word in ("--transformer", expert)]
    given += ["--vae", VAE, "--text_encoder", (folder / ENCODER).rename(folder.parent / ENCODER)]
    (folder / VAE.name).unlink()
    assert np.array_equal(make.frames(folder, *given), wanted)


def test_float8_takes_a_byte_in_the_estimate(make, folder):
    def plain_bytes():
        return json.loads(make(folder, "--dry_run", "--json").out)["memory_bytes"]["plain"]

    low = folder / EXPERT.replace("high", "low")
    tensors = load_file(low)
    blocks = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
    sizes = []
    for dtype in (torch.float32, torch.float8_e4m3fn):
        wide = {f"blocks.{block}.a.weight": torch.zeros(1024, 2048, dtype=dtype) for block in blocks}
        save_file({**tensors, **wide}, low)
        sizes.append(plain_bytes())
    assert sizes[0] - sizes[1] == pytest.approx(1.015 * len(blocks) * 3 * 2 * 1024**2, rel=0.001)


REFUSED = {
    "no expert": ([f"{MODEL / EXPERT}"], 2, r"the model has two experts; add ':high' or ':low'"),
    "twice": ([f"{MODEL / EXPERT}:low"] * 2, 2, "is the second for one network"),
    "missing": ([f"{MODEL}/none.safetensors:high"], 2, "no such file"),
    "folder": ([f"{MODEL}/high_noise_model:high"], 2, "is a folder, not a weight file; nearest .*diffusion_"),
    "vae": ([f"{VAE}:high"], 3, "tensor names of no known transformer"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_cannot_be_the_transformer(make, folder, kind):
    files, code, message = REFUSED[kind]
    finished = make(folder, *[word for file in files for word in ("--transformer", file)], "--dry_run")
    assert finished.code == code
    assert re.search(message, finished.complaint)


def test_a_pickle_without_tensors(make, folder, tmp_path):
    torch.save({"model": "none", "epoch": 3}, tmp_path / "vae.pt")
    finished = make(folder, "--vae", tmp_path / "vae.pt", "--dry_run")
    assert finished.code == 3
    assert "holds no table of tensors" in finished.complaint


@pytest.mark.parametrize(("flag", "file"), [("--vae", MODEL / EXPERT), ("--text_encoder", VAE)])
def test_files_that_cannot_be_another_component(make, folder, flag, file):
    finished = make(folder, flag, file, "--dry_run")
    assert finished.code == 3
    assert "is this the right file?" in finished.complaint


@pytest.mark.parametrize("dry", [(), ("--dry_run",)])
def test_a_git_lfs_pointer(make, folder, dry):
    (folder / "models_t5_umt5-xxl-enc-bf16.pth").write_text(
        "version https://git-lfs.github.com/spec/v1\noid 1\n"
    )
    finished = make(folder, *dry)
    assert finished.code == 3
    assert "Git LFS pointer, not the file itself; run 'git lfs pull'" in finished.err


def test_float8_without_scales_is_found_before_anything_is_read(make, folder):
    stored, _ = scaled(folder / EXPERT)
    del stored["model.diffusion_model.blocks.1.ffn.0.scale_weight"]
    save_file(stored, folder / EXPERT)
    finished = make(folder, "--dry_run")
    assert finished.code == 3
    assert "float8 weights without scales: model.diffusion_model.blocks.1.ffn.0.weight" in finished.err


def test_strays_are_named(make, folder):
    whole = folder / EXPERT
    index = whole.with_name(f"{whole.name}.index.json")
    names = [whole.with_name(f"part-0000{number}-of-00002.safetensors") for number in (1, 2)]
    tensors = load_file(whole)
    table = {name: names[number % 2].name for number, name in enumerate(tensors)}
    for file in names:
        save_file({name: tensors[name] for name in tensors if table[name] == file.name}, file)
    whole.rename(whole.with_name("old.safetensors"))
    index.write_text(json.dumps({"weight_map": table}))
    finished = make(folder, "--dry_run")
    assert finished.code == 0
    assert f"old.safetensors is not read: {index.name} does not list it" in finished.out
    index.unlink()
    finished = make(folder, "--dry_run")
    assert finished.code == 3
    assert "both hold" in finished.err


def test_networks_that_are_not_used_are_named(make, folder, tmp_path):
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in load_file(folder / EXPERT).items()}
    save_file({**tensors, "vae.decoder.conv.weight": torch.zeros(1)}, tmp_path / "all.safetensors")
    finished = make(folder, "--transformer", f"{tmp_path / 'all.safetensors'}:high", "--dry_run")
    assert finished.code == 0
    assert (
        f"1 of its {len(tensors) + 1} tensors belong to other networks (vae) and are not used" in finished.out
    )


@pytest.mark.parametrize("place", ["high_noise_model", "google", ".."])
def test_a_folder_one_level_off_names_the_right_one(make, folder, place):
    given = folder / place
    finished = make(given, "--dry_run")
    assert finished.code == 3
    assert f"nearest {folder}" in finished.err


def test_the_transformer_of_another_task(make, folder, tmp_path):
    tensors = load_file(MODEL / EXPERT)
    tensors["patch_embedding.weight"] = torch.zeros(48, 36, 1, 2, 2)
    save_file(tensors, tmp_path / "i2v.safetensors")
    finished = make(folder, "--transformer", f"{tmp_path / 'i2v.safetensors'}:high", "--dry_run")
    assert finished.code == 2
    assert re.search(r"--transformer .*: is for another task \(36 input channels\)", finished.complaint)


@pytest.mark.parametrize("beside", [False, True])
def test_a_lora_is_no_transformer(make, folder, tmp_path, beside):
    """In place of one, and forgotten beside one."""
    file = (folder / EXPERT).with_name("style.safetensors") if beside else tmp_path / "style.safetensors"
    save_file({"lora_unet_blocks_0_self_attn_q.lokr_w1": torch.ones(2, 2)}, file)
    given = () if beside else ("--transformer", f"{file}:high")
    finished = make(folder, *given, "--dry_run")
    assert finished.code == 3
    assert "self_attn_q.lokr_w1 is of a LoRA and not of a model; give its file with --lora" in finished.err


def test_quantize_leaves_what_is_quantized(make, folder):
    stored, _ = scaled(folder / EXPERT)
    save_file(stored, folder / EXPERT)
    finished = make(folder, "--quantize", "int8", "--dry_run")
    assert finished.code == 0
    assert "--quantize int8: what the model's files hold quantized stays as it is" in finished.out


def test_a_tokenizer_that_lost_its_end(make, folder):
    tokenizer = folder / "google/umt5-xxl/tokenizer.json"
    content = tokenizer.read_bytes()
    tokenizer.unlink()
    tokenizer.write_bytes(content[:-2000])
    finished = make(folder, "--dry_run")
    assert finished.code == 3
    assert "tokenizer.json: is no JSON, or not all of it; download it again" in finished.complaint


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "transformer.", "model."])
def test_prefixes_of_training_code(make, folder, tmp_path, prefix):
    named = {f"{prefix}{name}": tensor for name, tensor in load_file(MODEL / EXPERT).items()}
    save_file(named, tmp_path / "file.safetensors")
    given = ("--transformer", f"{tmp_path / 'file.safetensors'}:high")
    assert np.array_equal(make.frames(folder, *given), make.frames(folder))


def test_lora_on_float8_weights(make, folder, tmp_path):
    stored, plain = scaled(folder / EXPERT)
    for name, tensors in (("stored", stored), ("plain", plain)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    layer, generator = "diffusion_model.blocks.0.self_attn.q", torch.Generator().manual_seed(0)
    pair = {"lora_down": (2, 48), "lora_up": (48, 2)}
    lora = {f"{layer}.{key}.weight": torch.randn(shape, generator=generator) for key, shape in pair.items()}
    lora |= {f"{layer}.diff_b": torch.randn(48, generator=generator)}  # biases are not quantized
    save_file(lora, tmp_path / "lora.safetensors")
    frames = {
        name: make.frames(
            folder,
            *("--transformer", f"{tmp_path / name}.safetensors:high"),
            *("--lora", tmp_path / "lora.safetensors"),
        ).astype(int)
        for name in ("stored", "plain")
    }
    assert np.abs(frames["stored"] - frames["plain"]).max() <= 1
    assert np.abs(frames["stored"] - make.frames(folder).astype(int)).max() > 1


@pytest.mark.parametrize("expert", ["", ":1:high", ":1:low"])
def test_a_lora_that_does_not_fit_onto_quantized_weights(make, folder, tmp_path, expert):
    stored, _ = scaled(folder / EXPERT)
    save_file(stored, tmp_path / "stored.safetensors")
    layer = "diffusion_model.blocks.0.self_attn"
    lora = {f"{layer}.q.lokr_w1": torch.ones(4, 6), f"{layer}.q.lokr_w2": torch.ones(12, 8)}
    save_file(lora | {f"{layer}.norm_q.diff": torch.ones(48)}, tmp_path / "lora.safetensors")
    given = ("--transformer", f"{tmp_path / 'stored.safetensors'}:high")
    finished = make(folder, *given, "--lora", f"{tmp_path / 'lora.safetensors'}{expert}", "--dry_run")
    if expert == ":1:low":
        assert finished.code == 0
        return
    assert finished.code == 3
    what = f"1 of its 2 layers are not low-rank pairs ({layer}.q), which alone fit onto F8_E4M3 weights"
    assert what in finished.complaint


def test_a_component_of_a_folder_in_another_format(make, folder):
    wanted, old = make.frames(folder), folder / VAE.name
    save_file(torch.load(old, weights_only=True), old.with_suffix(".safetensors"))
    old.unlink()
    assert np.array_equal(make.frames(folder), wanted)


def test_low_vram_with_float8_weights(make, folder, tmp_path):
    stored, _ = scaled(folder / EXPERT)
    save_file(stored, tmp_path / "stored.safetensors")
    given = ("--transformer", f"{tmp_path / 'stored.safetensors'}:high")
    ours, streamed = (make.frames(folder, *given, *more).astype(int) for more in ((), ("--low_vram",)))
    assert np.abs(ours - streamed).mean() < 8  # the other expert is quantized too


@pytest.mark.parametrize(("name", "close"), [("int8", 3), ("float8", 6), ("int4", 12)])
def test_weights_quantized_when_they_are_loaded(make, folder, tmp_path, name, close):
    exact = make.frames(folder).astype(int)
    quantized = make.frames(folder, "--quantize", name).astype(int)
    assert 0 < np.abs(exact - quantized).mean() < close
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["request"]["quantize"] == name
    sizes = [
        json.loads(make(folder, *more, "--dry_run", "--json").out)["memory_bytes"]["plain"]
        for more in ((), ("--quantize", name))
    ]
    assert sizes[1] < sizes[0]


def test_quantize_is_not_for_streamed_weights(make, folder):
    finished = make(folder, "--quantize", "int8", "--low_vram", "--dry_run")
    assert finished.code == 2
    assert "not together with --low_vram" in finished.complaint
