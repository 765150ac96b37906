"""Components that come and go: on the CPU, where coming is a copy as well."""

from importlib import import_module

import pytest
import torch
from torch import nn

import videogen
from videogen.models.weight_loader import _convert, _mover
from videogen.planning.memory_estimate import MARGIN, Memory
from videogen.runtime import component_offload, memory
from videogen.runtime.component_offload import ComponentOffload, Upload
from videogen.tasks.table import VARIANTS

CPU = torch.device("cpu")


@pytest.fixture
def pipeline():
    return videogen.load("reference_to_video", "tiny", dtype=torch.float32, device="cpu")


def places(module):
    return [tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())]


def test_visits_leave_no_trace():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    module[0].weight = nn.Parameter(torch.randn(4, 4).T, requires_grad=False)  # not contiguous
    module.append(module[0])  # tied
    wanted, home = module.eval()(torch.ones(2, 4)), places(module)
    upload = Upload(module, component_offload.Copier(CPU))
    assert places(module) == home  # on the way
    upload.wait()
    assert not set(places(module)) & set(home)
    assert torch.allclose(module(torch.ones(2, 4)), wanted)
    upload.evict()
    assert places(module) == home


def take_turns(pipeline, monkeypatch, *, offload, room=True):
    """Who was there with weights on the device whenever somebody worked."""
    monkeypatch.setattr(component_offload, "free_memory", lambda _: 1 << 50 if room else 0)
    order = pipeline.model_cpu_offload_seq.split("->")
    transient = order[:-1] if offload else pipeline.encoder_names()
    pipeline.component_offload = ComponentOffload(pipeline, CPU, transient)
    seen = []

    def present():
        return {name for name, upload in pipeline.component_offload.uploads.items() if upload.ready}

    for name in order:
        module = getattr(pipeline, name)
        module.register_forward_hook(lambda *_, name=name: seen.append((name, present())))
    return seen


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("room", [False, True])
def test_the_result_is_the_same_and_one_visitor_is_there(pipeline, robot, monkeypatch, offload, room):
    arguments = {"ref_imgs": [robot], "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}

    def make():
        generator = torch.Generator().manual_seed(0)
        return pipeline("x", **arguments, generator=generator, output_type="uint8").frames

    wanted = make()
    home = places(pipeline.text_encoder), places(pipeline.transformer)
    seen = take_turns(pipeline, monkeypatch, offload=offload, room=room)
    pipeline._embeddings.clear()
    assert (make() == wanted).all()
    assert pipeline._execution_device == CPU
    assert seen[0] == ("text_encoder", {"text_encoder"})
    assert ("transformer", {"transformer"} if offload else set()) in seen
    assert all(present <= {name} for name, present in seen)
    assert not pipeline.component_offload.uploads  # all at rest
    assert (places(pipeline.text_encoder), places(pipeline.transformer)) == home
    seen.clear()
    assert (make() == wanted).all()
    assert "text_encoder" not in {name for name, _ in seen}  # its prompt is remembered


def test_the_next_one_comes_early_where_there_is_room(pipeline, monkeypatch):
    take_turns(pipeline, monkeypatch, offload=True)
    pipeline.component_offload.make_resident("text_encoder")
    assert {name: upload.ready for name, upload in pipeline.component_offload.uploads.items()} == {
        "text_encoder": True,
        "transformer": False,
    }
    early = pipeline.component_offload.uploads["transformer"]
    pipeline.component_offload.make_resident("transformer")
    assert pipeline.component_offload.uploads["transformer"] is early
    pipeline.component_offload.make_resident("vae")
    assert not pipeline.component_offload.uploads
    pipeline.component_offload.make_resident("text_encoder")
    pipeline.component_offload.make_resident(
        "vae"
    )  # encodes a video, for which there may be no room beside the transformer
    assert not pipeline.component_offload.uploads
    monkeypatch.setattr(component_offload, "free_memory", lambda _: 0)
    pipeline.component_offload.make_resident("text_encoder")
    assert list(pipeline.component_offload.uploads) == ["text_encoder"]


def test_experts_never_meet(monkeypatch):
    pipeline = videogen.load("text_to_video", "tiny:wan22-a14b", dtype="float32", device="cpu")
    seen = take_turns(pipeline, monkeypatch, offload=True)
    pipeline("x", num_frames=5, num_inference_steps=4, height=32, width=32, output_type="latent")
    assert {frozenset(present) for name, present in seen if name.startswith("transformer")} == {
        frozenset({"transformer"}),
        frozenset({"transformer_2"}),
    }


def test_every_encoder_visits():
    """What runs before the transformers is an encoder; everything else runs in every step, or is the VAE."""
    for rows in VARIANTS.values():
        for row in rows:
            module, _, name = row.pipeline.partition(":")
            encoders = getattr(import_module(module), name).encoder_names()
            assert set(encoders) <= row.components.keys()
            weightless = {
                name for name in row.components if name.startswith(("tokenizer", "image_processor"))
            }
            others = row.components.keys() - weightless - set(encoders)
            assert others <= {"vae", "transformer", "transformer_2"}


def test_weights_are_moved_before_they_are_cast(monkeypatch):
    """A float32 file for a bfloat16 network never fills RAM."""
    moves = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *where: (moves.append(where), self)[1])
    _convert(torch.zeros(2), torch.bfloat16, _mover(torch.device("meta")))
    _convert(torch.zeros(2, dtype=torch.int64), torch.bfloat16, _mover(None))
    assert moves == [(torch.device("meta"),), (torch.bfloat16,)]


@pytest.mark.parametrize(
    ("activations", "decode", "plain", "offload"),
    [(4, 1, 1 + 60 + 11, 1 + 30 + 6), (20, 1, 1 + 60 + 22, 1 + 30 + 22), (4, 70, 1 + 60 + 70, 1 + 70)],
)
def test_memory_is_that_of_the_worst_moment(activations, decode, plain, offload):
    """Experts stay, encoders do not."""
    weights = {"vae": 1, "encoders": (11, 2), "transformers": (30, 30)}
    sizes = {"activations": activations, "decode": decode, "tiled_decode": 0, "contexts": 2}
    need = Memory(**weights, **sizes)
    assert (need.peak(), need.peak(offload=True)) == (int(MARGIN * plain), int(MARGIN * offload))


def test_placing_on_the_cpu_changes_nothing(pipeline):
    memory.place(pipeline, CPU, offload=True, low_vram=False)
    assert pipeline.component_offload is None
