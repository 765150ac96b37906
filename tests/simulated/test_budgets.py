"""What one forward and one latent frame may take: kernels, traffic, activations, waiting.

One job stands for all: text_to_video with SkyReels-V2's 14B model at 720P, 121 frames, on an H100. The
figures are those of the project's goals.
"""

import pytest

from tests.simulated.guard import has_compiler
from tests.simulated.jobs import Job, simulate_job
from tests.simulated.roofline import elementwise, select, total, work_by
from tests.simulated.sim import simulate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard"),
]

MODEL = {"model_id": "Skywork/SkyReels-V2-T2V-14B-720P", "num_frames": 121}
TERABYTE, GIGABYTE = 1e12, 1e9
FORWARD = 4  # the second step's second branch: whatever is made once per prompt is there
LATENT_FRAME = 2  # the third: the first is shorter, and the caches are full from the second on


@pytest.fixture(scope="module")
def job() -> Job:
    with simulate("H100") as sim:
        return simulate_job(sim, "text_to_video", frames=9, num_inference_steps=2, **MODEL)


@pytest.fixture(scope="module")
def forward(job):
    return work_by(select(job.sim.ledger, "denoise", FORWARD), job.sim.gpu)


def test_the_products_of_a_forward_are_those_of_the_formula(job, forward):
    """Spec performance, section 0."""
    tokens, width, layers, ffn, text = job.plan.shape.tokens, 5120, 40, 13824, 512
    attention = 4 * layers * width * (tokens**2 + tokens * text)
    linear = 2 * tokens * layers * (6 * width**2 + 2 * width * ffn)
    assert forward["attention"].flops == pytest.approx(attention, rel=1e-3)
    assert forward["products"].flops == pytest.approx(linear, rel=1e-3)
    assert job.forwards == FORWARD


def test_the_attention_kernel_of_every_layer(job):
    kernels = {
        (event.what.split(":")[0], count)
        for event, count in job.sim.ledger.attention.items()
        if event.phase == "denoise" and event.step == FORWARD
    }
    assert kernels == {("cudnn", 40)}


def test_traffic_of_a_forward(forward):
    assert elementwise(forward) <= 1.6 * TERABYTE


def test_a_forward_is_near_the_limit_that_its_products_set(forward):
    work = total(forward.values())
    assert work.limit / work.seconds >= 0.96


def test_kernels_of_a_forward(forward):
    assert total(forward.values()).kernels <= 900


def test_activations_of_a_forward(job):
    """Bytes per token and unit of width, the keys and values of both texts included."""
    assert job.activations / (job.plan.shape.tokens * 5120) <= 22


def test_a_forward_waits_once_at_most(job):
    """For the noise level, with which the solver goes on; nothing within the network waits."""
    events = job.sim.ledger.syncs.items()
    waits = {e: count for e, count in events if (e.phase, e.step) == ("denoise", FORWARD)}
    assert sum(waits.values()) <= 1, waits
    assert all("/models/" not in event.place for event in waits)


def test_traffic_of_a_latent_frame(job):
    """At most half of what it was, 345 GB."""
    work = total(work_by(select(job.sim.ledger, "decode", LATENT_FRAME), job.sim.gpu).values())
    assert work.traffic <= 345 / 2 * GIGABYTE
