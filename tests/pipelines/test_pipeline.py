"""Use from Python: diffusers' manners, saving and loading, LoRA, memory options."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from PIL import Image
from safetensors.torch import save_file

import videogen
from tests.conftest import GOLDEN
from videogen.engine.load import load_loras
from videogen.errors import CheckpointError, InputError
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.reference_to_video import ReferenceToVideoPipeline
from videogen.planning.memory_estimate import Memory
from videogen.runtime import apply, memory
from videogen.runtime.precision import is_quantized
from videogen.tasks.option_types import Lora
from videogen.tasks.table import TASKS

GOLDEN_T2V = GOLDEN / "wan22/checkpoint-t2v-a14b/high_noise_model"


def generate(pipeline, robot, **arguments):
    asked = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}
    generator = torch.Generator().manual_seed(3)
    return pipeline("a robot", ref_imgs=[robot], generator=generator, **{**asked, **arguments}).frames


@pytest.fixture
def pipeline():
    loaded = videogen.load("reference_to_video", "tiny", dtype=torch.float32, device="cpu")
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.mark.parametrize(
    ("output_type", "kind", "shape"),
    [
        ("np", np.ndarray, (1, 5, 32, 48, 3)),
        ("pt", torch.Tensor, (1, 5, 3, 32, 48)),
        ("uint8", np.ndarray, (1, 5, 32, 48, 3)),
        ("latent", torch.Tensor, (1, 16, 2, 4, 6)),
    ],
)
def test_output_types(tiny_pipeline, robot, output_type, kind, shape):
    frames = generate(tiny_pipeline, robot, output_type=output_type)
    assert isinstance(frames, kind)
    assert frames.shape == shape


def test_pil_and_tuple_output(tiny_pipeline, robot):
    (frames,) = tiny_pipeline(
        "a robot",
        ref_imgs=[robot],
        height=32,
        width=48,
        num_frames=5,
        num_inference_steps=1,
        output_type="pil",
        return_dict=False,
    )
    assert [type(frame) for frame in frames[0]] == [Image.Image] * 5


def test_published_defaults_are_filled_in(tiny_pipeline, robot):
    complete = tiny_pipeline.complete({"ref_imgs": [robot]})
    assert complete["num_inference_steps"] == 8
    assert complete["shift"] == 5.0
    assert (complete["height"], complete["width"], complete["num_frames"]) == (96, 160, 25)


def test_wrong_output_type(tiny_pipeline, robot):
    with pytest.raises(ValueError, match="output_type"):
        generate(tiny_pipeline, robot, output_type="mp3")


def test_callback_reads_and_replaces_latents(tiny_pipeline, robot):
    seen = []

    def watch(pipe, index, timestep, tensors):
        assert pipe is tiny_pipeline
        seen.append((index, int(timestep), tensors["latents"].clone()))
        return {"latents": torch.zeros_like(tensors["latents"])} if index == 1 else None

    result = generate(tiny_pipeline, robot, callback_on_step_end=watch)
    assert [index for index, *_ in seen] == [0, 1]
    assert seen[0][2].abs().max() > 0
    assert torch.equal(result, torch.zeros_like(result))


def test_callback_stops_the_run(tiny_pipeline, robot):
    seen = []

    def stop(pipe, index, timestep, tensors):
        seen.append(tensors["latents"].clone())
        pipe._interrupt = True

    stopped = generate(tiny_pipeline, robot, num_inference_steps=6, callback_on_step_end=stop)
    assert len(seen) == 1
    assert torch.equal(stopped, seen[0])
    assert generate(tiny_pipeline, robot).shape == stopped.shape  # and the next run is not stopped


def test_prompt_reference_and_seed_matter(tiny_pipeline, robot):
    base = generate(tiny_pipeline, robot)
    assert torch.equal(base, generate(tiny_pipeline, robot))
    other = Image.new("RGB", robot.size, (10, 200, 30))
    assert (generate(tiny_pipeline, other) - base).abs().max() > 1e-3
    assert (generate(tiny_pipeline, robot, guidance_scale=4.0) - base).abs().max() > 1e-3


def test_save_and_load_round_trip(pipeline, robot, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    expected = generate(pipeline, robot)
    for loaded in (
        ReferenceToVideoPipeline.from_pretrained(tmp_path / "saved", torch_dtype=torch.float32, device="cpu"),
        videogen.load("reference_to_video", tmp_path / "saved", dtype=torch.float32, device="cpu"),
    ):
        loaded.set_progress_bar_config(disable=True)
        assert torch.equal(generate(loaded, robot), expected)


def test_components_are_diffusers_own(pipeline, tmp_path):
    """A saved transformer opens as diffusers' Wan, and the other way round."""
    pipeline.transformer.save_pretrained(tmp_path / "ours")
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = WanDiT.from_pretrained(tmp_path / "theirs")
    x, t, text = torch.randn(1, 16, 3, 4, 6), torch.tensor([700]), torch.randn(1, 512, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, t, text).sample, theirs(x, t, text).sample, atol=1e-4, rtol=1e-4)
    assert isinstance(pipeline.vae, AutoencoderKLWan)


def test_single_file_and_reduced_precision(pipeline, tmp_path):
    pipeline.transformer.save_pretrained(tmp_path / "saved")
    for model in (
        WanDiT.from_single_file(tmp_path / "saved"),
        WanDiT.from_pretrained(tmp_path / "saved", torch_dtype=torch.bfloat16),
    ):
        assert model.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
        assert model.blocks[0].scale_shift_table.dtype == torch.float32
        assert model.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    (published,) = GOLDEN_T2V.glob("*.safetensors")
    assert type(WanDiT.from_single_file(GOLDEN_T2V, torch.float32)) is WanDiT
    with pytest.raises(CheckpointError):  # without a config, heads are taken to be 128 wide
        WanDiT.from_single_file(published)


@pytest.fixture
def lora_file(tmp_path):
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for block in range(2):
        for layer, width in (("attn1.to_q", 48), ("attn2.to_v", 48), ("ffn.net.0.proj", 96)):
            name = f"transformer.blocks.{block}.{layer}"
            weights[f"{name}.lora_A.weight"] = torch.randn(4, 48, generator=generator)
            weights[f"{name}.lora_B.weight"] = torch.randn(width, 4, generator=generator)
    file = tmp_path / "tiny_lora.safetensors"
    save_file(weights, file)
    return file


def test_lora_changes_the_result_and_leaves_no_trace(pipeline, robot, lora_file):
    base = generate(pipeline, robot)
    pipeline.load_lora_weights(lora_file)
    changed = generate(pipeline, robot)
    assert (changed - base).abs().max() > 1e-3
    pipeline.unload_lora_weights()
    assert torch.equal(generate(pipeline, robot), base)


def test_lora_strength(pipeline, robot, lora_file):
    base = generate(pipeline, robot)
    load_loras(pipeline, [Lora(lora_file, 0.0, None)])
    torch.testing.assert_close(generate(pipeline, robot), base, atol=1e-6, rtol=0)


def test_a_lora_of_another_model_is_refused(pipeline, tmp_path):
    save_file({"transformer.nothing.lora_A.weight": torch.zeros(4, 7)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"--lora .*other.safetensors"):
        load_loras(pipeline, [Lora(tmp_path / "other.safetensors", 1.0, None)])


def test_component_offload_gives_the_same_result(pipeline, robot):
    """The hooks that move components also see the streamed decode."""
    expected = generate(pipeline, robot, output_type="uint8")
    pipeline.enable_model_cpu_offload(device="cpu")
    moved = []
    hook = pipeline.vae._hf_hook
    enter = hook.pre_forward
    hook.pre_forward = lambda *args, **kwargs: (moved.append(1), enter(*args, **kwargs))[1]
    assert np.array_equal(generate(pipeline, robot, output_type="uint8"), expected)
    assert moved


@pytest.mark.parametrize("offload_type", ["block_level", "leaf_level"])
def test_block_offload_gives_the_same_result(pipeline, robot, offload_type):
    expected = generate(pipeline, robot)
    pipeline.transformer.enable_group_offload(
        onload_device=torch.device("cpu"),
        offload_device=torch.device("cpu"),
        offload_type=offload_type,
        **({"num_blocks_per_group": 1} if offload_type == "block_level" else {}),
    )
    assert torch.equal(generate(pipeline, robot), expected)


def test_float8_weights(pipeline, robot):
    """Every Linear of the transformer, nothing else; close to the exact result."""
    from torch import nn

    expected = generate(pipeline, robot)
    memory.quantize(pipeline.transformer, torch.device("cpu"))
    linears = [module for module in pipeline.transformer.modules() if isinstance(module, nn.Linear)]
    assert linears
    assert all(is_quantized(module.weight) for module in linears)
    assert pipeline.transformer.patch_embedding.weight.dtype == torch.float32
    ours = generate(pipeline, robot)
    difference = (ours - expected).norm() / expected.norm()
    assert 0 < difference < 0.2


def test_float8_weights_streamed_block_by_block(pipeline, robot):
    """What --low_vram does on a GPU, with the CPU in its place."""
    cpu = torch.device("cpu")
    memory.quantize(pipeline.transformer, cpu)
    expected = generate(pipeline, robot, output_type="uint8")
    memory.stream_blocks(pipeline, cpu)
    assert np.array_equal(generate(pipeline, robot, output_type="uint8"), expected)


def test_layerwise_casting(pipeline, robot):
    expected = generate(pipeline, robot)
    pipeline.transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )
    assert (generate(pipeline, robot) - expected).norm() / expected.norm() < 0.3


@pytest.mark.parametrize("config", ["FirstBlockCacheConfig", "MagCacheConfig", "TaylorSeerCacheConfig"])
def test_step_caches_of_diffusers_attach(pipeline, robot, config):
    from diffusers import hooks

    options = {
        "FirstBlockCacheConfig": {"threshold": 1e9},
        "MagCacheConfig": {
            "threshold": 1e9,
            "num_inference_steps": 6,
            "mag_ratios": [1.0] * 6,
            "retention_ratio": 0.1,
        },
        "TaylorSeerCacheConfig": {
            "cache_interval": 3,
            "disable_cache_before_step": 1,
            "cache_identifiers": [r"blocks\.\d+\.attn1", r"blocks\.\d+\.attn2", r"blocks\.\d+\.ffn"],
        },
    }[config]
    expected = generate(pipeline, robot, num_inference_steps=6)
    pipeline.transformer.enable_cache(getattr(hooks, config)(**options))
    cached = generate(pipeline, robot, num_inference_steps=6)
    pipeline.transformer.disable_cache()
    assert (cached - expected).abs().max() > 0  # it did skip something
    assert torch.equal(generate(pipeline, robot, num_inference_steps=6), expected)


@pytest.mark.parametrize("name", ["sage", "flash", "cudnn"])
def test_an_attention_backend_that_does_not_run_is_an_error(pipeline, name):
    cpu = torch.device("cpu")
    assert apply.set_attention_backend(pipeline.transformer, "auto", cpu, torch.float32) == "native"
    with pytest.raises(
        InputError, match=f"--attention_backend {name}: does not run here, on cpu in float32"
    ) as no:
        apply.set_attention_backend(pipeline.transformer, name, cpu, torch.float32)
    assert "\n" not in str(no.value)
    with pytest.raises(InputError):
        apply.check_attention_backend(name, cpu, torch.bfloat16)
    assert pipeline.transformer.blocks[0].attn1.processor._attention_backend == "native"


def test_attention_backend_touches_this_model_only(pipeline):
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before = _AttentionBackendRegistry._active_backend
    apply.set_attention_backend(pipeline.transformer, "native", torch.device("cpu"), torch.float32)
    assert _AttentionBackendRegistry._active_backend is before
    assert pipeline.transformer.blocks[0].attn1.processor._attention_backend == "native"


def needing(size):
    return Memory(vae=0, transformers=(0,), encoders=(0,), activations=0, decode=size, tiled_decode=0)


@pytest.mark.parametrize(
    ("mode", "needed", "low_vram", "tiled"),
    [("auto", 1, False, False), ("auto", 10**18, False, True), ("off", 10**18, False, False)]
    + [("on", 1, False, True), ("auto", 1, True, True), ("off", 1, True, False)],
)
def test_tiling_is_chosen_and_announced(pipeline, caplog, mode, needed, low_vram, tiled):
    caplog.set_level("WARNING", logger="videogen")
    cpu = torch.device("cpu")
    assert memory.choose_tiling(pipeline, mode, needing(needed), cpu, low_vram=low_vram) is tiled
    assert len(caplog.records) == (tiled and mode == "auto")


def test_load_says_what_it_cannot_do():
    with pytest.raises(InputError, match="reference_to_video"):
        videogen.load("reference_to_vdeo")
    with pytest.raises(InputError, match="--device cuda"):
        videogen.load("reference_to_video", "tiny", device="cuda")
    with pytest.raises(CheckpointError, match="no such folder"):
        videogen.load("reference_to_video", "/no/such/folder")


@pytest.mark.parametrize("task", TASKS)
def test_components_are_offloaded_in_the_order_of_their_use(task, robot, speech):
    """accelerate's hooks send away what comes right before in the sequence, and nothing else."""
    pipeline = videogen.load(task, "tiny", dtype=torch.float32, device="cpu")
    used: list[str] = []
    names = [name for name in pipeline.model_cpu_offload_seq.split("->") if name != "vae"]
    for name in names:
        getattr(pipeline, name).register_forward_pre_hook(lambda *_, name=name: used.append(name))
    pipeline.vae.encoder.register_forward_pre_hook(lambda *_: used.append("vae"))
    video = np.zeros((40, 64, 96, 3), np.uint8)
    inputs = {"image": robot, "video": video, "audio": speech}
    given = {name: inputs[files.kind] for name, files in TASKS[task].inputs.items() if files.fewest}
    size = {"height": 32, "width": 64, "num_inference_steps": 4}
    frames = 49 if task == "talking_avatar" else 5  # one clip, the hidden one
    length = {"duration": 2} if "extension" in task else {"num_frames": frames}
    pipeline("x", **given, **size, **length, guidance_scale=3, output_type="latent")
    assert [name for name, _ in itertools.groupby(used) if name != "vae"] == names
    encoded = [index for index, name in enumerate(used) if name == "vae"]
    assert not {name for name in used[: max(encoded, default=0)] if name not in ("vae", "audio_encoder")}


def test_arguments_a_task_does_not_use_are_refused(tiny_pipeline, robot):
    for name, value in (("teacache", True), ("input_video", "x.mp4"), ("ar_step", 1)):
        with pytest.raises(InputError, match=f"{name}=: is no argument of reference_to_video"):
            tiny_pipeline("x", ref_imgs=[robot], **{name: value})


def test_transformers_of_diffusers_become_ours(pipeline, robot):
    """At construction or later; others are refused before anything runs."""
    expected, parts = generate(pipeline, robot), dict(pipeline.components)
    mine = parts["transformer"]
    theirs = WanTransformer3DModel.from_config(dict(mine.config))
    theirs.load_state_dict(mine.state_dict())
    built = ReferenceToVideoPipeline(**parts | {"transformer": theirs})
    built.set_progress_bar_config(disable=True)
    assert type(built.transformer) is WanDiT
    assert built.config.transformer[1] == "WanDiT"
    torch.testing.assert_close(generate(built, robot), expected)
    built.transformer = theirs
    assert type(built.transformer) is WanDiT
    for wrong, said in (
        (parts["vae"], "takes a WanDiT; videogen.load"),
        (
            WanTransformer3DModel.from_config({**mine.config, "cross_attn_norm": False}),
            "missing blocks.0.norm2",
        ),
    ):
        with pytest.raises(InputError, match=rf"^transformer= {type(wrong).__name__}: .*{said}"):
            ReferenceToVideoPipeline(**parts | {"transformer": wrong})
