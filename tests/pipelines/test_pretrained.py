"""Pipelines saved and opened again, with diffusers' options."""

import logging

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from peft import LoraConfig

import videogen
from videogen.checkpoints import hub
from videogen.errors import CheckpointError, InputError
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.image_to_video import ImageToVideoPipeline
from videogen.pipelines.scheduler import PublishedScheduler
from videogen.pipelines.text_to_video import TextToVideoPipeline
from videogen.pipelines.wan22_a14b import Wan22A14BPipeline

SIZE = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}


@pytest.fixture(scope="module")
def pipeline():
    return quiet(videogen.load("text_to_video", "tiny", dtype=torch.float32, device="cpu"))


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make(pipe):
    return quiet(pipe)("a cat", generator=torch.Generator().manual_seed(0), **SIZE).frames


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    pipeline.save_pretrained(folder)
    return folder


def test_the_default_dtype_is_diffusers(saved, pipeline):
    opened = TextToVideoPipeline.from_pretrained(saved)
    assert {part.dtype for part in (opened.vae, opened.transformer, opened.text_encoder)} == {torch.float32}
    assert isinstance(opened.scheduler, PublishedScheduler)
    assert torch.equal(make(opened), make(pipeline))
    loaded = TextToVideoPipeline.from_pretrained("tiny")  # not saved: the toolkit's own loader
    assert loaded.text_encoder.dtype == torch.float32


@pytest.mark.parametrize("scheduler", [FlowMatchEulerDiscreteScheduler(shift=7.0), None])
def test_a_scheduler_is_saved_if_it_was_set(pipeline, tmp_path, scheduler):
    pipeline.scheduler = scheduler
    try:
        expected = make(pipeline)
        pipeline.save_pretrained(tmp_path)
    finally:
        pipeline.scheduler = None
    opened = TextToVideoPipeline.from_pretrained(tmp_path)
    assert type(opened.scheduler) is type(scheduler or PublishedScheduler())
    assert torch.equal(make(opened), expected)


def test_components_in_place_of_the_saved_ones(saved, pipeline):
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0
    )
    given = {"transformer": pipeline.transformer, "vae": pipeline.vae, "scheduler": scheduler}
    for source in (saved, "tiny"):
        opened = TextToVideoPipeline.from_pretrained(source, **given)
        assert (opened.transformer, opened.vae) == (pipeline.transformer, pipeline.vae)
        assert opened.scheduler.config.flow_shift == 2.0


def test_dtypes_by_component(saved):
    dtypes = {"transformer": torch.bfloat16, "default": torch.float16}
    opened = TextToVideoPipeline.from_pretrained(saved, torch_dtype=dtypes)
    assert [part.dtype for part in (opened.transformer, opened.vae)] == [torch.bfloat16, torch.float16]
    loaded = TextToVideoPipeline.from_pretrained("tiny", dtype={"text_encoder": torch.bfloat16})
    assert [part.dtype for part in (loaded.text_encoder, loaded.vae)] == [torch.bfloat16, torch.float32]


def test_variants(pipeline, saved, tmp_path):
    pipeline.save_pretrained(tmp_path, variant="fp16")
    assert list((tmp_path / "transformer").glob("*.fp16.safetensors"))
    opened = TextToVideoPipeline.from_pretrained(tmp_path, variant="fp16", device_map="cpu")
    assert torch.equal(make(opened), make(pipeline))
    with pytest.raises(ValueError, match="variant=fp16"):
        TextToVideoPipeline.from_pretrained(saved, variant="fp16")
    with pytest.raises(
        InputError, match="variant= fp16: tiny was not saved by save_pretrained; leave it out"
    ):
        TextToVideoPipeline.from_pretrained("tiny", variant="fp16")


def test_what_cannot_be_opened_is_said(saved, monkeypatch):
    with pytest.raises(InputError, match="is a model for TextToVideoPipeline, not for Image"):
        ImageToVideoPipeline.from_pretrained(saved)
    with pytest.raises(InputError, match=r"torch_dtipe=: is no argument .* nearest torch_dtype"):
        TextToVideoPipeline.from_pretrained(saved, torch_dtipe=torch.float16)
    monkeypatch.setattr(hub, "free_bytes", lambda _folder: 0)  # is not asked: nothing is downloaded
    with pytest.raises(CheckpointError, match="not in the cache, and"):
        TextToVideoPipeline.from_pretrained("Skywork/SkyReels-V2-T2V-14B-540P", local_files_only=True)


def test_a_class_of_several_tasks_opens_a_model_of_each():
    for name, channels in (("tiny:wan22-a14b", {16, 36}),):
        opened = Wan22A14BPipeline.from_pretrained(name)
        assert opened.transformer.config.in_channels in channels
    text = videogen.load("text_to_video", "tiny:wan22-a14b", device="cpu").checkpoint.folder
    opened = Wan22A14BPipeline.from_pretrained(text)
    assert opened.row.name == "text_to_video"
    assert opened.transformer.config.in_channels == 16


def test_a_lora_is_saved_only_if_it_is_fused(pipeline, tmp_path, caplog):
    plain = make(pipeline)
    pipeline.transformer.add_adapter(
        LoraConfig(r=4, target_modules=["to_q"], init_lora_weights=False), "mine"
    )
    try:
        changed = make(pipeline)
        caplog.set_level(logging.WARNING, logger="videogen")
        pipeline.save_pretrained(tmp_path / "unfused")
        assert "save_pretrained leaves out the LoRA mine; fuse_lora() first saves it" in caplog.text
        assert torch.equal(make(pipeline), changed)  # it is still in use
        assert torch.equal(make(TextToVideoPipeline.from_pretrained(tmp_path / "unfused")), plain)
        pipeline.fuse_lora(["transformer", "transformer_2"])
        caplog.clear()
        pipeline.save_pretrained(tmp_path / "fused")
        assert "leaves out" not in caplog.text
        opened = TextToVideoPipeline.from_pretrained(tmp_path / "fused")
        torch.testing.assert_close(make(opened), changed, atol=1e-3, rtol=1e-3)
        assert type(opened.transformer) is WanDiT
    finally:
        pipeline.unload_lora_weights()
    assert torch.equal(make(pipeline), plain)


def test_one_expert_alone_takes_every_step(tmp_path):
    both = videogen.load("text_to_video", "tiny:wan22-a14b", dtype=torch.float32, device="cpu")
    alone = Wan22A14BPipeline(**{**both.components, "transformer": None})
    alone.spec = both.spec
    alone.save_pretrained(tmp_path)
    opened = Wan22A14BPipeline.from_pretrained(tmp_path)
    assert opened.transformer is None
    assert torch.equal(make(opened), make(alone))
    assert not torch.equal(make(both), make(alone))
