"""Downloads, from a small stand-in for the hub on this machine."""

import json
import os
import subprocess
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import REFS, ROOT
from videogen.models import tiny

SHA = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("Skywork/SkyReels-V3-R2V-14B", "Skywork/SkyReels-V3-Reference2Video")
NOT_NEEDED = ("README.md", "assets/demo.mp4", "transformer/preview.png", "image_encoder/model.safetensors")


class Hub(BaseHTTPRequestHandler):
    """Serves one folder as the repository ``repo``; remembers what was asked for."""

    def __init__(self, *args, folder: Path, repo: str, asked: list[str]):
        self.folder, self.repo, self.asked = folder, repo, asked
        super().__init__(*args)

    def log_message(self, *_args):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body: bool):
        path, api = self.path.partition("?")[0], f"/api/models/{self.repo}"
        if path == f"{api}/revision/main":
            self.reply(200, json.dumps({"id": self.repo, "sha": SHA}).encode(), with_body)
        elif path == f"{api}/tree/{SHA}":
            found = [file for file in self.folder.rglob("*") if file.is_file()]
            files = {file.relative_to(self.folder).as_posix(): file for file in found}
            tree = [
                {"type": "file", "oid": "0", "size": file.stat().st_size, "path": name}
                for name, file in files.items()
            ]
            self.reply(200, json.dumps(tree).encode(), with_body)
        elif path.startswith(f"/{self.repo}/resolve/{SHA}/"):
            name = path.removeprefix(f"/{self.repo}/resolve/{SHA}/")
            self.asked.append(name)
            headers = {"ETag": f'"{name.replace("/", "-")}"', "X-Repo-Commit": SHA}
            self.reply(200, (self.folder / name).read_bytes(), with_body, headers)
        else:
            known = path.startswith(api)
            code = "RevisionNotFound" if known else "RepoNotFound"
            self.reply(404, b"", with_body, {"X-Error-Code": code})

    def reply(self, status: int, body: bytes, with_body: bool, headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def repository(tmp_path):
    folder = tiny.build("skyreels-v3-r2v", tmp_path / "repository")
    for name in NOT_NEEDED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not needed")
    return folder


@pytest.fixture
def serve(repository):
    """Start a hub with the repository under a name; returns (its URL, the files asked for)."""
    servers = []

    def start(repo: str):
        asked: list[str] = []
        handler = partial(Hub, folder=repository, repo=repo, asked=asked)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def run(tmp_path, endpoint, model, *more):
    return subprocess.run(
        [
            *(sys.executable, ROOT / "generate_video.py", "--task_type", "reference_to_video"),
            *(
                "--model_id",
                model,
                "--ref_imgs",
                REFS / "robot.png",
                "--prompt",
                "a robot",
                "--device",
                "cpu",
            ),
            *("--height", "32", "--width", "48", "--num_frames", "5", "--num_inference_steps", "1", *more),
        ],
        env={
            **{name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
            "HF_ENDPOINT": endpoint,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_from_pretrained_reaches_the_hub_as_it_is_told(serve, tmp_path):
    endpoint, asked = serve(NAMES[0])
    code = (
        "from videogen.pipelines.reference_to_video import ReferenceToVideoPipeline as P\n"
        f"made = P.from_pretrained('{NAMES[0]}', token='secret', cache_dir='mine', revision='main')\n"
        "print(made.checkpoint.revision, made.checkpoint.folder)\n"
        f"P.from_pretrained('{NAMES[0]}', cache_dir='mine', local_files_only=True)\n"
    )
    names = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | names
    env["PYTHONPATH"] = str(ROOT)
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    revision, folder = done.stdout.split()
    assert revision == SHA
    assert (tmp_path / "mine") in (tmp_path / folder).parents
    assert not (tmp_path / "hub").exists()
    assert len(asked) == len(set(asked)) * 2  # each once asked for and once read; the second time none


@pytest.mark.parametrize(("free", "fits"), [(1000, False), (10**9, True)])
def test_what_nobody_knows_the_size_of_is_asked_before_it_is_downloaded(serve, tmp_path, free, fits):
    endpoint, _ = serve("some/model")
    code = (
        "import collections, shutil\n"
        f"shutil.disk_usage = lambda _: collections.namedtuple('Usage', 'free')({free})\n"
        "from videogen.checkpoints import hub\n"
        "print(hub.download(['some/model'], 'main', ['*.json', '*.safetensors'], 0, None)[1])\n"
    )
    names = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | names
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    there = [path for path in (tmp_path / "hub").rglob("*.safetensors") if path.is_file()]
    if fits:
        assert (done.stdout, bool(there)) == ("some/model\n", True), done.stderr
    else:
        assert "--model_id some/model: the download takes " in done.stderr
        assert not there


@pytest.mark.parametrize("served_as", NAMES)
@pytest.mark.slow
def test_a_model_is_downloaded_once_with_only_what_is_needed(serve, repository, tmp_path, served_as):
    endpoint, asked = serve(served_as)
    done = run(tmp_path, endpoint, NAMES[0], "--output", tmp_path / "one.npy", "--progress", "json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    come = [event["done"] for event in events if event.get("stage") == "download" and "done" in event]
    blobs = (tmp_path / "hub").glob("*/blobs/*")
    assert come[-1] == sum(file.stat().st_size for file in blobs)
    assert f"downloading {NAMES[0]}: its weights are under the Skywork Community License" in done.stderr
    assert asked
    assert not set(asked) & set(NOT_NEEDED)
    record = json.loads((tmp_path / "one.json").read_text())
    assert (record["model"]["id"], record["model"]["revision"]) == (served_as, SHA)

    asked.clear()
    done = run(tmp_path, "http://127.0.0.1:9", NAMES[0], "--output", tmp_path / "two.npy")
    assert done.returncode == 0, done.stderr
    assert "Community License" not in done.stderr
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--revision", "v9"), "v9"),
        pytest.param((), "no such repository", marks=pytest.mark.slow),
    ],
)
def test_what_the_hub_does_not_have(serve, tmp_path, more, message):
    endpoint, _ = serve(NAMES[0])
    model = NAMES[0] if more else "nobody/nothing"
    done = run(tmp_path, endpoint, model, "--output", tmp_path / "x.mp4", *more)
    assert done.returncode == 3, done.stderr
    assert message in done.stderr
    assert not list(tmp_path.glob("x*"))
