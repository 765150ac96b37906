"""--preview_every: what is written, and that the video is the same bytes with it and without."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from videogen.checkpoints.tiny_autoencoder import DecoderSizes
from videogen.engine.preview import Previews
from videogen.models.latent_preview import LinearDecoder
from videogen.models.tiny_decoder import TinyDecoder
from videogen.results.progress import Reporter


def previews_of(finished):
    """Return (segment, step) of every preview that a run with --progress json reports."""
    events = [json.loads(line) for line in finished.err.splitlines()]
    return [(event.get("segment"), event["step"]) for event in events if event["event"] == "preview"]


@pytest.fixture
def kept(monkeypatch):
    """The previews that a run writes: (frames, size, milliseconds of the first)."""
    from videogen.engine import preview

    found, write = [], preview.write_webp

    def looked_at(path, frames, seconds):
        write(path, frames, seconds)
        with Image.open(path) as picture:
            assert (picture.format, picture.is_animated) == ("WEBP", len(frames) > 1)
            picture.load()
            found.append((picture.n_frames, picture.size, picture.info["duration"]))

    monkeypatch.setattr(preview, "write_webp", looked_at)
    return found


def test_the_video_is_the_same_bytes(cli, forcing, tmp_path, kept):
    words = forcing(
        *("--num_frames", "29", "--base_num_frames", "17", "--overlap_history", "5"),
        *("--ar_step", "1", "--num_inference_steps", "4", "--progress", "json"),
    )
    plain, seen = tmp_path / "plain", tmp_path / "seen"
    for folder, more in ((plain, ()), (seen, ("--preview_every", "2", "--keep_parts"))):
        saved = ("--output", folder / "a.npy", "--save_latents", folder / "a.safetensors")
        finished = cli(*words, *saved, *more)
        assert finished.code == 0, finished.err
    assert (plain / "a.safetensors").read_bytes() == (seen / "a.safetensors").read_bytes()
    assert (plain / "a.npy").read_bytes() == (seen / "a.npy").read_bytes()
    steps = previews_of(finished)
    assert {segment for segment, _ in steps} == {1, 2}
    assert [step for segment, step in steps if segment == 1] == [
        2,
        4,
        6,
        8,
    ]  # 4 steps, each of 5 frames one later
    assert {frames for frames, _, _ in kept} == {5}  # latent frames of a segment, each for 4 at 24 fps
    assert {milliseconds for _, _, milliseconds in kept} == {167}
    assert (seen / "a.preview.webp").is_file()  # --keep_parts
    plans = [json.loads((folder / "a.json").read_text())["plan_hash"] for folder in (plain, seen)]
    assert plans[0] == plans[1]


def test_a_preview_is_gone_when_the_video_is_there(cli, r2v, tmp_path):
    finished = cli(*r2v, "--output", tmp_path / "a.mp4", "--preview_every", "1", "--progress", "json")
    assert previews_of(finished) == [(None, 1), (None, 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.mp4"]
    assert "preview_every" not in json.loads((tmp_path / "a.json").read_text())["request"]
    kept = ("--output", tmp_path / "b.mp4", "--preview_every", "1", "--keep_parts")
    for more in ((), ("--resume",)):
        assert cli(*r2v, *kept, *more).code == 0
        assert (tmp_path / "b.preview.webp").is_file()
        assert not (tmp_path / "b.parts").exists()


def test_a_tiny_autoencoder_decodes_every_frame(cli, r2v, tmp_path, kept):
    file = tmp_path / "taew2_1.safetensors"
    weights = TinyDecoder(DecoderSizes(channels=16, patch=1, growth=(1, 2, 2))).state_dict()
    save_file({name: torch.randn_like(weight) / 9 for name, weight in weights.items()}, file)
    words = (*r2v, "--output", tmp_path / "a.mp4", "--vae_preview", file)
    assert "--vae_preview: says how previews are decoded" in cli(*words).complaint
    finished = cli(*words, "--preview_every", "2")
    assert finished.code == 0, finished.err
    assert kept == [(5, (256, 171), 42)]


def test_a_file_that_is_none_is_refused_at_once(cli, r2v, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    words = ("--output", tmp_path / "a.mp4", "--preview_every", "2", "--vae_preview")
    finished = cli(*r2v, *words, tmp_path / "a.safetensors")
    assert (finished.code, "no decoder of TAEHV" in finished.complaint) == (3, True)
    finished = cli(*r2v, *words, tmp_path / "b.safetensors")
    assert (finished.code, "no such file" in finished.complaint) == (2, True)


def test_a_model_without_a_table_is_one_line(cli, r2v, tmp_path, monkeypatch):
    from videogen.engine import preview

    monkeypatch.setattr(preview.latent_preview, "linear_decoder", lambda *_: None)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4", "--preview_every", "1")
    assert finished.code == 0
    assert finished.err.count("no table is known for the latents of this VAE; python -m benchmarks") == 1


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), MemoryError("out of memory")])
def test_what_goes_wrong_ends_the_previews_and_not_the_run(tmp_path, caplog, failure):
    def fail():
        raise failure

    decoder = LinearDecoder(torch.zeros(4, 3), torch.zeros(3))
    previews = Previews(2, decoder, tmp_path / "a.preview.webp", 24, Reporter())
    previews(1, fail)  # not due: what a step predicts is not even computed
    with caplog.at_level("WARNING", "videogen"):
        previews(2, fail)
        previews(4, fail)
    assert [record.message.count("no more previews of this video") for record in caplog.records] == [1]
    with pytest.raises(ZeroDivisionError):  # what is wrong with the code is not hidden
        Previews(2, decoder, tmp_path / "a.webp", 24, Reporter())(2, lambda: 1 / 0)
