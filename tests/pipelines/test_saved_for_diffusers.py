"""Folders that ``save_pretrained`` wrote, opened by diffusers' own pipelines, and again by ours."""

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from PIL import Image

import videogen
from videogen.diffusion.sampling import FLOW
from videogen.errors import InputError
from videogen.pipelines.scheduler import PublishedScheduler
from videogen.pipelines.text_to_video import TextToVideoPipeline
from videogen.pipelines.wan import WanPipeline

SIZE = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}
UNIPC, EULER = "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"
IMAGE = Image.effect_noise((32, 32), 50).convert("RGB")
A14B, TI2V = "tiny:wan22-a14b", "tiny:wan22-5b"
V2, WAN, HUNYUAN = (
    f"{family}Transformer3DModel" for family in ("SkyReelsV2", "Wan", "HunyuanVideo")
)  # fmt: skip
# Task, model; the pipeline that opens it, and the one that the folder names; transformer, scheduler, shift.
SAVED = [
    ("text_to_video", "tiny", "WanPipeline", "SkyReelsV2Pipeline", V2, UNIPC, 8.0),
    ("text_to_video", "tiny", "SkyReelsV2Pipeline", "SkyReelsV2Pipeline", V2, UNIPC, 8.0),
    ("image_to_video", "tiny", *["SkyReelsV2ImageToVideoPipeline"] * 2, V2, UNIPC, 8.0),
    ("image_to_video", "tiny", "WanImageToVideoPipeline", "SkyReelsV2ImageToVideoPipeline", V2, UNIPC, 8.0),
    ("diffusion_forcing", "tiny", *["SkyReelsV2DiffusionForcingPipeline"] * 2, V2, UNIPC, 8.0),
    ("text_to_video", A14B, "WanPipeline", "WanPipeline", WAN, UNIPC, 12.0),
    ("image_to_video", A14B, "WanImageToVideoPipeline", "WanImageToVideoPipeline", WAN, UNIPC, 5.0),
    ("text_to_video", TI2V, "WanPipeline", "WanPipeline", WAN, UNIPC, 5.0),
    ("image_to_video", TI2V, "WanImageToVideoPipeline", "WanPipeline", WAN, UNIPC, 5.0),
    ("hunyuan_image_to_video", "tiny", *["HunyuanVideoImageToVideoPipeline"] * 2, HUNYUAN, EULER, 7.0),
]
EXTRA = {A14B: {"text_to_video": {"boundary_ratio": 0.875}, "image_to_video": {"boundary_ratio": 0.9}}}


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load(task, model="tiny"):
    return quiet(videogen.load(task, model, dtype=torch.float32, device="cpu"))


def make(pipe, **given):
    return quiet(pipe)(prompt="a robot", generator=torch.Generator().manual_seed(1), **SIZE, **given).frames


def by_hand(kind, pipe, transformer, scheduler, **options):
    """Return a pipeline of diffusers from components, its transformers with the weights of ours."""
    own = dict(pipe.components)
    for name in ("transformer", "transformer_2"):
        if own.get(name) is not None:
            config = {k: v for k, v in own[name].config.items() if not k.startswith(("_", "audio_"))}
            if transformer is diffusers.WanTransformer3DModel:
                config.pop("inject_sample_info")
            theirs = transformer(**config)
            theirs.load_state_dict(own[name].state_dict())
            own[name] = theirs.eval()
    if "image_encoder" in own:
        from transformers import CLIPImageProcessorPil

        side = own["image_encoder"].config.image_size
        own["image_processor"] = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
    return kind(**{**own, "scheduler": scheduler}, **options)


@pytest.mark.parametrize(("task", "model", "opener", "named", "transformer", "scheduler", "shift"), SAVED)
def test_diffusers_opens_a_saved_folder(task, model, opener, named, transformer, scheduler, shift, tmp_path):
    ours = load(task, model)
    ours.save_pretrained(tmp_path)
    opened, kind = DiffusionPipeline.from_pretrained(tmp_path), getattr(diffusers, opener)
    assert type(opened) is getattr(diffusers, named)
    assert type(opened.transformer) is getattr(diffusers, transformer)
    assert type(opened.scheduler) is getattr(diffusers, scheduler)
    theirs = kind.from_pretrained(tmp_path)
    made = (
        FlowMatchEulerDiscreteScheduler(shift=shift)
        if scheduler == EULER
        else UniPCMultistepScheduler(flow_shift=shift, **FLOW)
    )
    extra = EXTRA.get(model, {}).get(task, {"expand_timesteps": True} if model == TI2V else {})
    expected = by_hand(kind, ours, getattr(diffusers, transformer), made, **extra)
    given = {"image": IMAGE} if "Image" in opener else {}
    if "Forcing" in opener:
        given["base_num_frames"] = 97
    latents = make(expected, **given)
    assert torch.isfinite(latents).all()
    torch.testing.assert_close(make(theirs, **given), latents, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("task", "model"), sorted({(row[0], row[1]) for row in SAVED}))
def test_ours_opens_the_same_folder_as_it_was(task, model, tmp_path):
    ours = load(task, model)
    ours.save_pretrained(tmp_path)
    opened = quiet(type(ours).from_pretrained(tmp_path))
    assert type(opened.scheduler) is PublishedScheduler
    assert opened.scheduler.config.flow_shift == ours.scheduler.config.flow_shift
    assert type(opened.transformer) is type(ours.transformer)
    given = {"input_image": IMAGE} if "image" in task else {}
    torch.testing.assert_close(make(opened, **given), make(ours, **given), atol=0, rtol=0)


def test_a_scheduler_that_was_set_is_in_the_folder(tmp_path):
    ours = load("text_to_video")
    ours.scheduler = UniPCMultistepScheduler.from_config(ours.scheduler.config, flow_shift=3.0)
    ours.save_pretrained(tmp_path)
    for kind in (DiffusionPipeline, type(ours)):
        opened = kind.from_pretrained(tmp_path)
        assert type(opened.scheduler) is UniPCMultistepScheduler
        assert opened.scheduler.config.flow_shift == 3.0


@pytest.mark.parametrize(("alone", "ratio"), [("transformer", None), ("transformer_2", 1.0)])
def test_one_expert_alone(alone, ratio, tmp_path):
    both = load("text_to_video", A14B)
    other = {"transformer": "transformer_2", "transformer_2": "transformer"}[alone]
    type(both)(**{**both.components, other: None}).save_pretrained(tmp_path)
    opened = DiffusionPipeline.from_pretrained(tmp_path)
    assert (getattr(opened, other), opened.config.boundary_ratio) == (None, ratio)
    assert torch.isfinite(make(opened)).all()


def test_a_model_that_diffusers_cannot_hold_opens_as_ours(tmp_path):
    ours = load("talking_avatar")
    ours.save_pretrained(tmp_path)
    opened = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(opened) is type(ours)
    assert type(opened.scheduler) is PublishedScheduler
    with pytest.raises(ValueError, match=r"WanPipeline.* expected .*'scheduler'"):
        diffusers.WanPipeline.from_pretrained(tmp_path)
    ours.scheduler = FlowMatchEulerDiscreteScheduler(shift=4.0)
    ours.save_pretrained(tmp_path)
    opened = DiffusionPipeline.from_pretrained(tmp_path, scheduler=ours.scheduler)
    assert opened.scheduler is ours.scheduler
    assert type(ours).from_pretrained(tmp_path).scheduler.config.shift == 4.0


def test_our_names_replace_none_of_diffusers():
    assert diffusers.TextToVideoPipeline is diffusers.pipelines.TextToVideoPipeline is TextToVideoPipeline
    assert WanPipeline.__name__ == "WanPipeline"  # ours is only a base of others
    assert diffusers.WanPipeline.__module__.startswith("diffusers.")


def test_hunyuan_encodes_prompts_of_different_lengths():
    ours = videogen.load("hunyuan_image_to_video", "tiny", dtype=torch.float32, device="cpu")
    prompts = ["a cat", "a cat that walks on a wall"]
    rows, summaries, mask = ours.encode_prompt(IMAGE, prompts)
    assert mask.sum(1).tolist() == [int(mask[0].sum()), rows.shape[1]] != [rows.shape[1]] * 2
    encoded = {"prompt_embeds": rows, "pooled_prompt_embeds": summaries, "prompt_attention_mask": mask}
    given = {**SIZE, "image": IMAGE, "output_type": "latent"}
    seeds = [torch.Generator().manual_seed(1) for _ in range(4)]
    found = ours(**given, **encoded, generator=seeds[:2]).frames
    assert torch.equal(found, ours(prompts, **given, generator=seeds[2:]).frames)


def test_hunyuan_in_diffusers_names():
    """With ``true_cfg_scale``, which only diffusers has, ``guidance_scale`` is the distilled one."""
    ours = load("hunyuan_image_to_video")
    scales = {"true_cfg_scale": 2.0, "guidance_scale": 5.0}
    found = make(ours, image=IMAGE, **scales)
    same = {"guidance_scale": 2.0, "embedded_cfg_scale": 5.0}
    torch.testing.assert_close(found, make(ours, image=IMAGE, **same), atol=0, rtol=0)
    assert not torch.equal(found, make(ours, image=IMAGE, guidance_scale=2.0))
    with pytest.raises(InputError, match=r"is no argument of TextToVideoPipeline"):
        make(load("text_to_video"), true_cfg_scale=2.0)
    with pytest.raises(InputError, match=r"give one of the two"):
        make(ours, image=IMAGE, embedded_cfg_scale=5.0, **scales)
