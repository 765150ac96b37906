"""What ``--dry_run`` says of memory, against the simulated peak of the published models at full size.

Every job runs on a card that has 5 % more than the estimate. The estimate is never below the peak, and at
most 5 % above it.
"""

import re

import pytest

from tests.conftest import ROOT
from tests.simulated.guard import has_compiler
from tests.simulated.jobs import MODES, ROOM, planned, run_with_little_room, simulate_job
from tests.simulated.models import FAMILIES
from tests.simulated.sim import simulate

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard")

R2V = ("reference_to_video", {})
WAN22_5B = ("image_to_video", {"model_id": "Wan-AI/Wan2.2-TI2V-5B"})
HUNYUAN = ("hunyuan_image_to_video", {})
FRAMES = 9  # the third latent frame takes what every later one does


@pytest.mark.parametrize(
    ("task", "options", "mode"),
    [
        pytest.param(*R2V, "offload", id="r2v-offload", marks=pytest.mark.slow),
        pytest.param(*R2V, "plain", id="r2v-plain", marks=pytest.mark.slow),
        pytest.param(*WAN22_5B, "plain", id="wan22-5b-plain", marks=pytest.mark.slow),
        pytest.param(*WAN22_5B, "offload", id="wan22-5b-offload", marks=pytest.mark.slow),
        pytest.param(*HUNYUAN, "plain", id="hunyuan-plain", marks=pytest.mark.slow),
        pytest.param(*HUNYUAN, "offload", id="hunyuan-offload", marks=pytest.mark.slow),
    ],
)
def test_a_job_fits_where_it_is_said_to(task, options, mode):
    job, fitted = run_with_little_room(task, frames=FRAMES, num_inference_steps=2, **MODES[mode], **options)
    assert fitted, f"{job.peak / 1e9:.1f} GB"
    assert job.peak <= job.estimate <= job.peak * ROOM, f"{job.peak / 1e9:.2f}, {job.estimate / 1e9:.2f} GB"
    assert job.frames >= FRAMES


@pytest.mark.slow
def test_low_vram_streams_the_weights_in_every_forward():
    options = {"num_inference_steps": 2, "guidance_scale": 1, "low_vram": True}
    with simulate("4090") as sim:
        sim.ledger.counting = False
        job = simulate_job(sim, "diffusion_forcing", forwards=2, **options)
    assert job.forwards == 2
    streamed = dict.fromkeys((1, 2), 0)
    for event, size in sim.ledger.copies.items():
        if event.phase == "denoise" and event.what.startswith("cpu to cuda, pinned"):
            streamed[event.step] += size
    weights = job.plan.facts.memory.transformers[0] // 2  # a byte each
    assert all(size == pytest.approx(weights, rel=0.05) for size in streamed.values()), streamed
    denoising = {event.what for event in sim.ledger.copies if event.phase == "denoise"}
    assert "pinned on the host" not in denoising  # that is done once, when the model is loaded
    assert not any(event.what == "item" for event in sim.ledger.syncs if event.phase == "denoise")
    assert job.peak <= job.estimate <= job.peak * ROOM


@pytest.mark.parametrize(("task", "options"), [row[1:] for row in FAMILIES], ids=[row[0] for row in FAMILIES])
def test_the_manual_says_what_dry_run_says(task, options):
    with planned(task, **options) as plan:
        figures = [f"{size / 1e9:.1f}" for size in plan.memory_bytes.values()]
    manual = (ROOT / "docs/memory.md").read_text(encoding="utf-8")
    assert re.search(r"( GB)? \| ".join(map(re.escape, figures)), manual), figures
