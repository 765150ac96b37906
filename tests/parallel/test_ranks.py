"""Several ranks make what one process makes: every task, on two and on four CPU processes.

One start of torchrun per number of ranks runs all commands of that number.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import REFS, ROOT
from videogen import distributed
from videogen.runtime import parallel
from videogen.tasks.table import TASKS

WORKER = """
import json, sys
from videogen.cli import chain, main
for program, command in json.load(open(sys.argv[1])):
    code = (chain if program == "chain" else main).main(command)
    assert code == 0, (command, code)
"""
TOLERANCE = 1e-5  # absolute; of a ring, beyond as much of the value
CHAIN = [
    *("--ckpt_dir", "tiny:wan22-a14b", "--num_videos", "2", "--base_seed", "5", "--no_vlm"),
    *("--height", "32", "--width", "48", "--num_frames", "5", "--sample_steps", "2", "--device", "cpu"),
    *("--dtype", "float32"),
]


@dataclass(frozen=True)
class Case:
    """A command, and ways to share it: by number of ranks."""

    task: str
    flags: tuple
    two: tuple[str, ...]
    four: tuple[str, ...]


def sized(height, width, *flags):
    return ("--height", height, "--width", width, "--num_inference_steps", 2, *flags)


# A frame of 32x48 has 6 tokens, one of 48x80 has 15, one of 32x64 has 8 (Wan2.2 5B: of twice the size).
CASES = {
    "references": Case(
        "reference_to_video",
        sized(48, 80, "--num_frames", 5, "--ref_imgs", REFS / "robot.png"),
        ("--ulysses_degree 2", "--ring_degree 2"),
        ("--ulysses_degree 4",),
    ),
    "references, three branches": Case(
        "reference_to_video",
        sized(32, 48, "--num_frames", 5, "--ref_imgs", REFS / "robot.png", "--guidance_scale", 3),
        ("--cfg_parallel",),
        ("--cfg_parallel --ring_degree 2",),
    ),
    "extension": Case(
        "single_shot_extension",
        sized(32, 48, "--input_video", "source.mp4", "--duration", 1),
        ("--ulysses_degree 2",),
        ("--ulysses_degree 2 --ring_degree 2",),
    ),
    "two rolls": Case(
        "single_shot_extension",
        sized(32, 48, "--input_video", "source.mp4", "--duration", 6, "--num_inference_steps", 1),
        ("",),
        (),
    ),
    "cut": Case(
        "shot_switching_extension",
        sized(48, 80, "--input_video", "source.mp4", "--duration", 2),
        ("--ring_degree 2",),
        ("--ring_degree 4",),
    ),
    "text": Case(
        "text_to_video",
        sized(48, 80, "--num_frames", 9),
        ("--ulysses_degree 2", "--ring_degree 2", "--cfg_parallel"),
        ("--cfg_parallel --ulysses_degree 2", "--ulysses_degree 2 --ring_degree 2"),
    ),
    "image": Case(
        "image_to_video",
        sized(48, 80, "--num_frames", 9, "--input_image", REFS / "balloon.png"),
        ("--ulysses_degree 2",),
        ("--ring_degree 4",),
    ),
    "forcing": Case(
        "diffusion_forcing",
        sized(32, 48, "--num_frames", 17, "--ar_step", 1, "--causal_block_size", 1),
        ("--ring_degree 2",),
        ("--ulysses_degree 4",),
    ),
    "forcing, causal": Case(
        "diffusion_forcing",
        sized(48, 80, "--num_frames", 17, "--ar_step", 1, "--causal_block_size", 1, "--causal_attention"),
        ("--ulysses_degree 2",),
        (),
    ),
    "two experts": Case(
        "text_to_video",
        sized(32, 48, "--num_frames", 9, "--model_id", "tiny:wan22-a14b"),
        ("--cfg_parallel",),
        ("",),
    ),
    "v2v": Case(
        "v2v-14B",
        sized(48, 80, "--num_frames", 9, "--input_video", "source.mp4"),
        ("--ulysses_degree 2",),
        ("--ulysses_degree 2 --ring_degree 2",),
    ),
    "v2v 5B": Case(
        "v2v-5B",
        sized(64, 96, "--num_frames", 9, "--input_video", "source.mp4"),
        ("--ring_degree 2",),
        ("--cfg_parallel",),
    ),
    "avatar": Case(
        "talking_avatar",
        sized(
            *(32, 48, "--input_image", REFS / "balloon.png", "--input_audio", "speech.wav"),
            *("--guidance_scale", 3, "--guidance_scale_audio", 3),
        ),
        ("--ulysses_degree 2", "--cfg_parallel"),
        ("--ring_degree 2 --ulysses_degree 2",),
    ),
    "Hunyuan": Case(
        "hunyuan_image_to_video",
        sized(48, 80, "--num_frames", 9, "--input_image", REFS / "balloon.png"),
        ("--ulysses_degree 2", "--ring_degree 2"),
        ("--ulysses_degree 4",),
    ),
    "Hunyuan beside the noise": Case(
        "hunyuan_image_to_video",
        sized(
            *(48, 80, "--num_frames", 9, "--input_image", REFS / "balloon.png", "--guidance_scale", 2),
            *("--model_id", "tiny:hunyuan-latent-concat"),
        ),
        ("--cfg_parallel",),
        ("--ulysses_degree 2 --ring_degree 2",),
    ),
}


def launch(ranks, script, *arguments, **options):
    """Start torchrun on this machine."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"),
            *(str(script), *map(str, arguments)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def files(make_video, speech):
    return {"source.mp4": make_video(), "speech.wav": speech}


@pytest.fixture(scope="module")
def commands(files):
    """Name -> its arguments, without output."""

    def words(case):
        flags = [str(files.get(word, word)) for word in case.flags]
        model = [] if "--model_id" in flags else ["--model_id", "tiny"]
        return [
            *("--task_type", case.task, *model, "--prompt", "a robot waves", "--seed", "7", *flags),
            *("--device", "cpu", "--dtype", "float32"),
        ]

    return {name: words(case) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def alone(commands, tmp_path_factory):
    """(frames, latents) of every case from one process."""
    from videogen.cli.main import main

    folder = tmp_path_factory.mktemp("alone")
    for index, words in enumerate(commands.values()):
        output = ["--output", f"{folder}/{index}.npy", "--save_latents", f"{folder}/{index}.safetensors"]
        assert main([*words, *output]) == 0
    return {name: read(folder, index) for index, name in enumerate(commands)}


def read(folder, name):
    return np.load(folder / f"{name}.npy"), load_file(folder / f"{name}.safetensors")


def test_every_task_is_shared():
    assert {case.task for case in CASES.values() if case.two and case.four} == set(TASKS)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_ranks_make_what_one_makes(ranks, commands, alone, files, tmp_path):
    runs = [(name, ways) for name, case in CASES.items() for ways in (case.two if ranks == 2 else case.four)]
    worker, listed = tmp_path / "worker.py", tmp_path / "commands.json"
    worker.write_text(WORKER)
    orders = [
        (
            "video",
            [
                *(*commands[name], "--use_usp", *ways.split()),
                *("--output", f"{tmp_path}/{index}.npy"),
                *("--save_latents", f"{tmp_path}/{index}.safetensors"),
            ],
        )
        for index, (name, ways) in enumerate(runs)
    ]
    chain = [*CHAIN, "--video", str(files["source.mp4"]), "--output_dir"]
    orders += [("chain", [*chain, f"{tmp_path}/chain", "--use_usp"])] if ranks == 2 else []
    listed.write_text(json.dumps(orders))
    process = launch(ranks, worker, listed)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err[-4000:]
    assert out.splitlines()[: len(runs)] == [f"{tmp_path}/{i}.npy" for i in range(len(runs))]
    worst = {}
    for index, (name, ways) in enumerate(runs):
        frames, latents = read(tmp_path, index)
        wanted_frames, wanted = alone[name]
        assert latents.keys() == wanted.keys()
        share = TOLERANCE if "ring" in ways else 0  # a ring adds up in another order
        excess = [(latents[key] - wanted[key]).abs() - share * wanted[key].abs() for key in wanted]
        worst[name, ways] = max(float(beyond.max()) for beyond in excess)
        assert np.abs(frames.astype(int) - wanted_frames).max() <= 1, (name, ways)
    assert max(worst.values()) <= TOLERANCE, worst
    if ranks == 2:
        from videogen.cli.chain import main

        assert main([*chain, f"{tmp_path}/alone"]) == 0
        pictures = [np.asarray(Image.open(tmp_path / name / "video_02_7.png")) for name in ("chain", "alone")]
        assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1


@pytest.fixture
def long_run(r2v, tmp_path):
    """A command on two ranks, in the middle of writing its video."""
    folder = tmp_path / "out"
    folder.mkdir()
    command = [*r2v, "--num_frames", "401", "--use_usp", "--output", str(folder / "a.mp4")]
    process = launch(2, ROOT / "generate_video.py", *command)
    end = time.monotonic() + 120
    while not list(folder.glob(".*.part*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    yield process, folder
    process.kill()


def complaints(err):
    return [line for line in err.splitlines() if line.startswith(("error: ", "interrupted"))]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.slow
def test_a_rank_that_dies_ends_all(long_run, rank):
    process, folder = long_run
    (victim,) = (
        child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == str(rank)
    )
    victim.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(complaints(err)) <= 1
    assert rank == 0 or not list(folder.iterdir())  # rank 0 itself cannot clean up after kill -9
    assert not list(folder.glob("a.*"))


@pytest.mark.slow
def test_interrupted_ranks_leave_nothing(long_run):
    process, folder = long_run
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(complaints(err)) <= 1
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_a_failure_of_one_rank_is_told_once(r2v, tmp_path):
    """Rank 0 cannot write; the other would wait for it for ever."""
    folder = tmp_path / "out"
    folder.mkdir()
    script = tmp_path / "fails.py"
    script.write_text(
        "import os, sys\n"
        "from videogen.cli import main\n"
        "from videogen.engine import generate\n"
        "def full(*_):\n"
        "    raise OSError(28, 'No space left on device')\n"
        "if os.environ['RANK'] == '0':\n"
        "    generate.fit = full\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )
    process = launch(2, script, *r2v, "--use_usp", "--output", folder / "a.mp4")
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert len(complaints(err)) == 1, err
    assert "No space left" in complaints(err)[0]
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("ranks", "flags", "said"),
    [
        (1, ("--use_usp",), "--use_usp: one process was started.*torchrun --nproc_per_node=2"),
        (2, (), "--use_usp: torchrun started 2 processes.*add it"),
        (
            3,
            ("--use_usp",),
            "--use_usp on 3 ranks: the model has 4 attention heads; 1, 2, 4 work.*--ring_degree 3",
        ),
        (4, ("--use_usp", "--ring_degree", 3), "--ring_degree 3: must divide.*nearest"),
        (4, ("--use_usp", "--ring_degree", 4, "--ulysses_degree", 2), "--ulysses_degree 2: .*nearest 1"),
        (2, ("--use_usp", "--cfg_parallel"), "--cfg_parallel: there is one forward per step"),
        (
            2,
            ("--use_usp", "--ring_degree", 2, "--attention_backend", "native", "--device", "cuda"),
            "--attention_backend native cannot work in a ring; use cudnn, flash, sage",
        ),
        (2, ("--use_usp", "--device", "cuda:1"), "--device cuda:1: every rank takes a GPU of its own"),
        (1, ("--ring_degree", 2), "--ring_degree 2: is for several GPUs.*torchrun --nproc_per_node=2"),
        (7, ("--use_usp", "--ring_degree", 7), "a frame has 6 tokens for 7 ranks"),
    ],
)
def test_ranks_that_cannot_share(cli, r2v, tmp_path, monkeypatch, ranks, flags, said):
    """Told by rank 0, before torch is imported."""
    import videogen.distributed

    cli(*r2v, "--output", tmp_path / "built.mp4")  # the tiny model is there, and its heads known
    own = videogen.distributed.Ranks(size=ranks, local_size=ranks, launched=ranks > 1)
    monkeypatch.setattr(videogen.distributed, "get_ranks", lambda: own)
    finished = cli(*r2v, "--device", "auto", *flags, "--output", tmp_path / "a.mp4")
    assert finished.code == 2
    assert re.search(said, finished.complaint)
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(("gpus", "device"), [(2, torch.device("cuda", 1)), (0, None)])
def test_the_group_is_told_which_gpu_a_rank_has(monkeypatch, gpus, device):
    """NCCL guesses it otherwise, and connects when the first tensor is sent."""
    given = {}
    monkeypatch.setattr(
        distributed, "get_ranks", lambda: distributed.Ranks(rank=1, size=2, local_rank=1, local_size=2)
    )
    monkeypatch.setattr(distributed, "communicator", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(parallel.dist, "rendezvous", lambda *_, **__: iter([("store", 1, 2)]))
    monkeypatch.setattr(
        parallel.dist, "init_process_group", lambda backend, **options: given.update(options, backend=backend)
    )
    monkeypatch.setattr(parallel.atexit, "register", lambda function: None)
    parallel.init_communicator(wanted=True)
    assert given["device_id"] == device
    assert given["backend"] == ("cpu:gloo,cuda:nccl" if gpus else "gloo")
