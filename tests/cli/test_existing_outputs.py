"""Outputs that exist already: --resume, --overwrite, and names that are free."""

import json


def test_resume_skips_what_is_finished(cli, r2v, tmp_path):
    words = [*r2v, "--seed", "1,2", "--output_dir", str(tmp_path), "--resume"]
    assert cli(*words).code == 0
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.mp4")}
    (tmp_path / "2_2.json").unlink()  # as if killed before the end
    finished = cli(*words)
    assert finished.code == 0, finished.err
    assert [path.name for path in finished.paths] == ["1_1.mp4", "2_2.mp4"]
    assert (tmp_path / "1_1.mp4").stat().st_mtime_ns == stamps[tmp_path / "1_1.mp4"]
    assert (tmp_path / "2_2.mp4").stat().st_mtime_ns > stamps[tmp_path / "2_2.mp4"]

    finished = cli(*words, "--shift", 3)
    assert finished.code == 2
    assert "--resume" in finished.complaint
    assert "was made with another shift" in finished.complaint


def test_resume_replaces_only_our_own(cli, r2v, tmp_path):
    (tmp_path / "a.mp4").write_text("precious")
    finished = cli(*r2v, "--output", tmp_path / "a.mp4", "--resume")
    assert finished.code == 2
    assert "is no earlier result of videogen" in finished.complaint
    (tmp_path / "b.json").write_text('{"precious": true}')
    assert cli(*r2v, "--output", tmp_path / "b.mp4", "--resume").code == 2
    assert (tmp_path / "a.mp4").read_text() == "precious"
    assert (tmp_path / "b.json").read_text() == '{"precious": true}'


def test_resume_makes_what_is_missing_of_a_result(cli, r2v, tmp_path):
    words = [*r2v, "--output", tmp_path / "a.npy", "--resume"]
    assert cli(*words).code == 0
    finished = cli(*words, "--save_latents", tmp_path / "a.safetensors")
    assert finished.code == 0, finished.err
    assert (tmp_path / "a.safetensors").is_file()


def test_resume_keeps_a_seed_that_was_drawn(cli, r2v, tmp_path):
    words = [*r2v, "--seed", "random", "--output_dir", tmp_path, "--resume"]
    (first,) = cli(*words).paths
    (second,) = cli(*words).paths
    assert first == second
    assert len(list(tmp_path.glob("*.mp4"))) == 1


def test_overwrite_replaces_only_our_own(cli, r2v, tmp_path):
    assert cli(*r2v, "--output", tmp_path / "a.mp4").code == 0
    assert "exists already" in cli(*r2v, "--output", tmp_path / "a.mp4").complaint
    assert cli(*r2v, "--output", tmp_path / "a.mp4", "--seed", 9, "--overwrite").code == 0
    assert json.loads((tmp_path / "a.json").read_text())["seed"] == 9
    assert cli(*r2v, "--output", tmp_path / "frames", "--num_frames", 9).code == 0
    assert len(list((tmp_path / "frames").iterdir())) == 9
    assert "exists already" in cli(*r2v, "--output", tmp_path / "frames").complaint
    assert cli(*r2v, "--output", tmp_path / "frames", "--overwrite").code == 0
    assert len(list((tmp_path / "frames").iterdir())) == 5


def test_default_names_never_collide(cli, r2v, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *args: "2026-01-02_03-04-05")
    first, second = (cli(*r2v).paths[0] for _ in range(2))
    assert str(first) == "result/reference_to_video/42_2026-01-02_03-04-05.mp4"
    assert str(second) == "result/reference_to_video/42_2026-01-02_03-04-05_2.mp4"


def test_two_processes_with_one_default_name_lose_nothing(cli, r2v, tmp_path, monkeypatch):
    """Another process finishes under the name that was free when this one began."""
    from videogen.engine import generate

    monkeypatch.chdir(tmp_path)
    original = generate._record

    def meanwhile(plan, pipeline):
        plan.outputs.path.parent.mkdir(parents=True, exist_ok=True)
        plan.outputs.path.write_text("theirs")
        return original(plan, pipeline)

    monkeypatch.setattr(generate, "_record", meanwhile)
    (path,) = cli(*r2v).paths
    assert path.stem.endswith("_2")
    assert path.with_suffix(".json").is_file()
    assert (path.with_name(path.name.replace("_2.mp4", ".mp4"))).read_text() == "theirs"
