"""One rank of eight at a published model: shapes, traffic between ranks, memory of each, in four layouts."""

from collections import Counter

import pytest

from tests.simulated.guard import has_compiler
from tests.simulated.jobs import ROOM, planned, run_job
from tests.simulated.ranks import one_rank_of
from tests.simulated.sim import simulate

pytestmark = [
    pytest.mark.skipif(not has_compiler(), reason="needs g++ for the device guard"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
]

MODEL = {"model_id": "Skywork/SkyReels-V2-T2V-14B-720P", "num_frames": 121, "num_inference_steps": 2}
RANKS, WIDTH, LAYERS, HEADS, TOKENS = 8, 5120, 40, 40, 111600
BFLOAT16, FLOAT32 = 2, 4
ALONE = {"guidance_scale": 1}
LAYOUTS = {
    "ulysses 8": {**ALONE, "ulysses_degree": 8},
    "cfg 2, ulysses 4": {"cfg_parallel": True, "ulysses_degree": 4},
    "ring 2, ulysses 4": {**ALONE, "ring_degree": 2, "ulysses_degree": 4},
    "ring 8": {**ALONE, "ring_degree": 8},
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS],
)
def made(request):
    """Give the job of rank 0 and what --dry_run said of the memory of each rank."""
    options = {**MODEL, **LAYOUTS[request.param], "use_usp": True}
    rank = RANKS - 1 if request.param == "ring 8" else 0  # the last may hold less
    with (
        one_rank_of(RANKS, rank) as communicator,
        simulate("H100", gpus=RANKS) as sim,
        planned("text_to_video", **options) as plan,
    ):
        job = run_job(sim, plan, frames=9, communicator=communicator)
        return job, plan.facts.degrees, job.estimate


def received(job, phase, step):
    """Bytes that the rank receives, by collective."""
    found: Counter[str] = Counter()
    for event, size in job.sim.ledger.exchanged.items():
        if event[:2] == (phase, step):
            found[event.what] += size
    return found


def test_every_rank_has_its_share_of_the_tokens(made):
    job, degrees, _ = made
    forwards = 2 if degrees.cfg == 2 else 2 * job.plan.shape.forwards_per_step
    assert job.forwards == forwards  # with a branch of the guidance each, one per step
    shapes = {
        event.what for event in job.sim.ledger.attention if event.phase == "denoise" and event.step == 1
    }
    share = TOKENS // degrees.sequence
    to_text = f"cudnn: torch.bfloat16 1x{HEADS}x{share}x128 to 512"
    to_all = f"cudnn: torch.bfloat16 1x{HEADS // degrees.ulysses}x{TOKENS}x128 to {TOKENS}"
    assert shapes == ({to_text, to_all} if degrees.ring == 1 else {to_text})
    assert job.frames == 9


def test_traffic_between_ranks_in_a_forward(made):
    """Ulysses exchanges queries, keys, values and the result; a ring hands keys and values round."""
    job, degrees, _ = made
    share = TOKENS // degrees.sequence * WIDTH * BFLOAT16 * LAYERS
    expected = {
        "all_to_all_single": 4 * share * (degrees.ulysses - 1) // degrees.ulysses,
        "all_gather_into_tensor": 2 * share * (degrees.ring - 1),
    }
    found = received(job, "denoise", 2)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-3)
    velocity = TOKENS * 64  # numbers; put together, and exchanged in float32 by the branches of the guidance
    rest = sum(found.values()) - sum(expected.values())
    assert rest <= velocity * (BFLOAT16 + FLOAT32 * (degrees.cfg - 1))


def test_activations_of_a_rank(made):
    """Its share of the tokens, the exchange of attention, texts, and what no rank splits."""
    job, degrees, _ = made
    bounds = {(1, 1, 8): 4.0e9, (2, 1, 4): 6.2e9, (1, 2, 4): 5.0e9, (1, 8, 1): 7.6e9}
    assert job.activations <= bounds[degrees.cfg, degrees.ring, degrees.ulysses]


def test_the_estimate_of_a_rank(made):
    job, _, estimate = made
    assert job.peak <= estimate <= job.peak * ROOM, f"{job.peak / 1e9:.2f}, {estimate / 1e9:.2f} GB"


def test_decoder_shards_receive_only_halo_rows(made):
    """Per piece of four frames: a row from each side for 40 convolutions, 131 MB; keys and values of the
    attention in the middle, 39 MB; and the other bands of the picture, 39 MB."""
    job, _, _ = made
    assert sum(received(job, "decode", 2).values()) <= 0.25e9
