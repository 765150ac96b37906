"""LoRAs from a hub repository and from URLs: what is fetched, and what a result says of them."""

import hashlib
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from videogen.checkpoints import lora_source
from videogen.tasks.options import OPTIONS

LAYER = "transformer.blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("given", "source", "scale", "expert"),
    [
        ("a/b:c.safetensors", "a/b:c.safetensors", 1.0, None),
        ("a/b:d/c.safetensors:0.5", "a/b:d/c.safetensors", 0.5, None),
        ("a/b:d/c.safetensors:0.5:high", "a/b:d/c.safetensors", 0.5, "high"),
        ("a/b:d/c.safetensors:low", "a/b:d/c.safetensors", 1.0, "low"),
        ("https://x.y/c.safetensors", "https://x.y/c.safetensors", 1.0, None),
        ("https://x.y:80/c.safetensors:2", "https://x.y:80/c.safetensors", 2.0, None),
        ("https://x.y/api/1?type=a:0.5:low", "https://x.y/api/1?type=a", 0.5, "low"),
        ("c.safetensors:0.5", None, 0.5, None),
    ],
)
def test_how_sources_are_written(given, source, scale, expert):
    (lora,) = OPTIONS["lora"].value(given)
    assert (lora.source, lora.scale, lora.expert) == (source, scale, expert)
    again = OPTIONS["lora"].value(lora.recorded)[0]
    assert (again.scale, again.expert) == (scale, expert)


@pytest.fixture
def server(tmp_path):
    """A folder on a server of this machine; returns (folder, URL, names that were asked for)."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            asked.append(self.path)

    running = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    Thread(target=running.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()


def write_lora(file, size=1.0):
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"{LAYER}.lora_A.weight": torch.ones(4, 48) * size, f"{LAYER}.lora_B.weight": torch.ones(48, 4)},
        file,
    )
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_url_is_fetched_once_and_never_by_a_dry_run(cli, r2v, tmp_path, server):
    folder, url, asked = server
    digest = write_lora(folder / "my style.safetensors")
    word = f"{url}/my%20style.safetensors?token=secret:0.5"
    local = tmp_path / "local.npy"
    assert (
        cli(*r2v, "--seed", 1, "--output", local, "--lora", f"{folder / 'my style.safetensors'}:0.5").code
        == 0
    )

    finished = cli(*r2v, "--lora", word, "--dry_run", "--json")
    assert finished.code == 0, finished.err
    assert not asked
    plan = json.loads(finished.out)
    assert plan["plan_hash"] is None
    (note,) = plan["notes"]
    name = f"{url.rpartition(':')[0]}/my%20style.safetensors"
    assert note == f"--lora {name} is to be downloaded, and was not looked at yet"

    for name in ("one", "two"):
        output = tmp_path / f"{name}.npy"
        finished = cli(*r2v, "--seed", 1, "--output", output, "--lora", word)
        assert finished.code == 0, finished.err
        assert np.array_equal(np.load(output), np.load(local))
    assert len(asked) == 1
    text = output.with_suffix(".json").read_text()
    assert "secret" not in text
    record = json.loads(text)
    (lora,) = record["loras"]
    assert (lora["sha256"], lora["scale"], lora["expert"]) == (digest, 0.5, None)
    assert record["plan_hash"] == json.loads(local.with_suffix(".json").read_text())["plan_hash"]


def test_a_page_instead_of_a_file(cli, r2v, tmp_path, server):
    folder, url, _ = server
    (folder / "login.safetensors").write_text("<html>log in</html>" * 100)
    finished = cli(*r2v, "--output", tmp_path / "a.npy", "--lora", f"{url}/login.safetensors")
    assert finished.code == 2
    assert "is a web page, not the file itself" in finished.complaint
    finished = cli(*r2v, "--output", tmp_path / "a.npy", "--lora", f"{url}/nowhere.safetensors")
    assert finished.code == 2
    assert "the server answered 404" in finished.complaint


def test_a_repository_in_the_cache_and_one_that_is_not(cli, r2v, tmp_path, monkeypatch):
    name = "some/style:v2/x.safetensors"
    finished = cli(*r2v, "--lora", f"{name}:0.5", "--dry_run")
    assert finished.code == 0, finished.err
    assert f"--lora {name} is to be downloaded" in finished.err
    finished = cli(*r2v, "--output", tmp_path / "a.npy", "--lora", name)
    assert finished.code == 3
    assert f"--lora {name}: not in the cache, and HF_HUB_OFFLINE is set" in finished.complaint

    digest = write_lora(tmp_path / "snapshot" / "x.safetensors")
    monkeypatch.setattr(lora_source, "find", lambda _: tmp_path / "snapshot" / "x.safetensors")
    finished = cli(*r2v, "--output", tmp_path / "a.npy", "--lora", f"{name}:0.5")
    assert finished.code == 0, finished.err
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["request"]["lora"] == [f"{name}:0.5"]
    assert record["loras"] == [{"name": name, "sha256": digest, "scale": 0.5, "expert": None}]


def test_the_plan_follows_the_content(cli, r2v, tmp_path):
    file, hashes = tmp_path / "x.safetensors", set()
    assert cli(*r2v, "--output", tmp_path / "first.npy").code == 0  # so that the model is here
    for size in (1.0, 2.0):
        write_lora(file, size)
        hashes.add(json.loads(cli(*r2v, "--seed", 1, "--lora", file, "--dry_run", "--json").out)["plan_hash"])
    assert len(hashes) == 2


def test_warnings_about_a_lora_stand_in_the_sidecar(cli, r2v, tmp_path):
    file = tmp_path / "x.safetensors"
    write_lora(file)
    tensors = {f"{LAYER}.lora_A.weight": torch.ones(4, 48), f"{LAYER}.lora_B.weight": torch.ones(48, 4)}
    save_file({**tensors, "strange": torch.ones(1)}, file)
    assert cli(*r2v, "--output", tmp_path / "a.npy", "--lora", file).code == 0
    (note,) = json.loads((tmp_path / "a.json").read_text())["warnings"]
    assert note == "--lora x.safetensors: 1 of its 3 tensors are not used: unknown names (1)"
