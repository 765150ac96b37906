"""One network class reproduces every published forward of the family to 1e-4."""

import pytest
import torch
from torch.nn.functional import pad

from tests.conftest import GOLDEN
from videogen.diffusion.conditioning import Segment, pack, unpack
from videogen.models.components import load_component
from videogen.models.wan.transformer import WanDiT

TOLERANCE = 1e-4


def load(checkpoint: str) -> WanDiT:
    model = load_component("transformer", GOLDEN / checkpoint)
    assert type(model) is WanDiT
    return model


def rows(context: torch.Tensor) -> torch.Tensor:
    """Text cut to its valid rows, as the published code keeps it, back to 512."""
    return pad(context, (0, 0, 0, 512 - len(context)))[None]


@torch.no_grad()
def forward(model: WanDiT, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
    return model(*args, **kwargs).sample


def assert_close(ours: torch.Tensor, published: torch.Tensor) -> None:
    assert ours.shape == published.shape
    assert (ours - published).abs().max() <= TOLERANCE


def test_reference_to_video(golden):
    case = golden("skyreels_v3/r2v_transformer")
    x = case.inputs
    out = forward(
        load("skyreels_v3/checkpoint-r2v/transformer"),
        x["hidden_states"],
        x["timestep"],
        x["encoder_hidden_states"],
    )
    assert_close(out, case.outputs["out"])


@pytest.mark.parametrize(("levels", "out"), [("t", "out"), ("t_mixed", "out_t_mixed")])
def test_extension_with_a_noise_level_per_frame(golden, levels, out):
    case = golden("skyreels_v3/ext_transformer_tensor")
    model = load("skyreels_v3/checkpoint-v2v/transformer")
    assert_close(
        forward(model, case.inputs["x"], case.inputs[levels], case.inputs["context"]), case.outputs[out]
    )


@pytest.mark.parametrize(("levels", "out"), [("t", "out"), ("t_mixed", "out_t_mixed")])
def test_shot_context_at_position_1024(golden, levels, out):
    """Packed from segments, as the pipelines do it."""
    case = golden("skyreels_v3/ext_transformer_list")
    video, prefix, t = case.inputs["x"], case.inputs["prefix"], case.inputs[levels]
    frames = video.shape[2]
    segments = [
        Segment(latents=video, timestep=t[:, :frames]),
        Segment(latents=prefix, timestep=t[:, frames:], temporal_start=1024),
    ]
    packed = pack(segments)
    model = load("skyreels_v3/checkpoint-v2v/shot_transformer")
    both = forward(
        model, packed.latents, packed.timestep, case.inputs["context"], frame_positions=packed.positions
    )
    assert_close(unpack(both, segments)[0], case.outputs[out])


def test_text_to_video(golden):
    case = golden("skyreels_v2/transformer_t2v")
    model = load("skyreels_v2/checkpoint-SkyReels-V2-T2V-14B-540P")
    assert_close(
        forward(model, case.inputs["x"], case.inputs["t"], case.inputs["context"]), case.outputs["out"]
    )


def test_image_to_video_with_clip_tokens_and_extra_channels(golden):
    case = golden("skyreels_v2/transformer_i2v")
    x = case.inputs
    model = load("skyreels_v2/checkpoint-SkyReels-V2-I2V-14B-540P")
    segment = Segment(latents=x["x"], timestep=x["t"][0], extra=x["y"])
    packed = pack([segment])
    out = forward(
        model, packed.latents, packed.timestep, x["context"], encoder_hidden_states_image=x["clip_fea"]
    )
    assert_close(out, case.outputs["out"])


@pytest.mark.parametrize(("rate", "out"), [(1, "out"), (0, "out_fps0")])
def test_diffusion_forcing_with_frame_rate(golden, rate, out):
    case = golden("skyreels_v2/transformer_df_fps")
    model = load("skyreels_v2/checkpoint-SkyReels-V2-DF-1.3B-540P")
    x = case.inputs
    assert_close(forward(model, x["x"], x["t"], x["context"], fps=torch.tensor([rate])), case.outputs[out])


def test_diffusion_forcing_without_frame_rate(golden):
    case = golden("skyreels_v2/transformer_df_nofps")
    model = load("skyreels_v2/checkpoint-SkyReels-V2-DF-14B-720P")
    x = case.inputs
    assert_close(forward(model, x["x"], x["t"], x["context"]), case.outputs["out"])
    uniform = torch.full_like(x["t"], case.about["uniform_t"])
    assert_close(forward(model, x["x"], uniform, x["context"]), case.outputs["out_uniform_t_1d"])
    assert_close(forward(model, x["x"], uniform[:, 0], x["context"]), case.outputs["out_uniform_t_1d"])


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [
        ("wanmodel_t2v", "checkpoint-t2v-a14b/high_noise_model"),
        ("wanmodel_i2v", "checkpoint-i2v-a14b/low_noise_model"),
    ],
)
def test_wan22_experts(golden, name, checkpoint):
    case = golden(f"wan22/{name}")
    x = case.inputs
    latents = torch.cat([x[part] for part in ("x0", "y0") if part in x])[None]
    out = forward(load(f"wan22/{checkpoint}"), latents, x["t"], rows(x["context0"]))
    assert_close(out[0], case.outputs["out0"])


def test_wan22_5b_with_a_clean_first_frame(golden):
    """The published model takes a level per token; within a frame they are always equal."""
    case = golden("wan22/wanmodel_ti2v")
    x = case.inputs
    per_frame = x["t"].view(1, 3, 6)
    assert (per_frame == per_frame[..., :1]).all()
    model = load("wan22/checkpoint-ti2v-5b")
    out = forward(model, x["x0"][None], per_frame[..., 0], rows(x["context0"]))
    assert_close(out[0], case.outputs["out0"])


def test_avatar_with_audio(golden):
    case = golden("talking_avatar/transformer_forward")
    x = case.inputs
    model = load("talking_avatar/checkpoint-A")
    with torch.no_grad():
        assert_close(model.audio_proj(x["audio"]), case.outputs["audio_proj_out"])
    out = forward(
        model,
        torch.cat([x["x"][None], x["y"]], dim=1),
        x["t"],
        x["context"][None],
        encoder_hidden_states_image=x["clip_fea"],
        encoder_hidden_states_audio=x["audio"],
    )
    assert_close(out, case.outputs["out"])


def test_avatar_of_two_people(golden):
    case = golden("talking_avatar/transformer_forward_two_people")
    x = case.inputs
    model = load("talking_avatar/checkpoint-A")

    def made(masks: torch.Tensor) -> torch.Tensor:
        return forward(
            model,
            torch.cat([x["x"][None], x["y"]], dim=1),
            x["t"],
            x["context"][None],
            encoder_hidden_states_image=x["clip_fea"],
            encoder_hidden_states_audio=x["audio"],
            speaker_masks=masks,
        )

    assert_close(made(x["ref_target_masks"]), case.outputs["out"])
    assert (made(x["ref_target_masks"].roll(1, 0)) - case.outputs["out"]).abs().max() > 0.1
