"""What a client may not say, and how it is told."""

import io
from pathlib import Path

import pytest

from tests.conftest import REFS
from tests.server.conftest import SHORT
from videogen.errors import CheckpointError, InputError, brief
from videogen.files import OutputError
from videogen.server.requests import KINDS, explained, for_clients, without_folders
from videogen.server.worker import described
from videogen.tasks.options import OPTIONS

TEXT = {"prompt": "a swan", "task_type": "text_to_video"}


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"num_frames": 80}, "num_frames 80: must be 4k+1; nearest 77 or 81", "num_frames"),
        ({"num_inference_step": 3}, "request num_inference_step: no such option; nearest num_inf", "num_inf"),
        ({"size": "big"}, "size big: must be WIDTH*HEIGHT; for example 1280*720", "size"),
        ({"size": "1280x722"}, "height 722: must be a multiple of 16; nearest 720 or 736", "height"),
        ({"height": 12000, "width": 12000}, "request 12000x12000, 5 frames: takes about", "12000"),
        ({"seed": [1, 2]}, "request seed: a request is for one video", "seed"),
        ({"seconds": 1e308, "num_frames": None}, "duration 1e+308: must be a number above 0 to", "duration"),
        ({"seed": -1}, "seed -1: must lie between 0 and", "seed"),
        ({"task_type": "text_to_vide"}, "task_type text_to_vide: must be one of", "task_type"),
        ({"ar_step": 5}, "ar_step 5: not used by text_to_video; used by diffusion_forcing", "ar_step"),
        ({"prompt": None}, "prompt: required by text_to_video", "prompt"),
        ({"model": "sora-2"}, "request model sora-2: this server has tiny; leave it out", "model"),
        # Nothing of the host:
        ({"model_id": "/etc"}, "request model_id: is decided by the server; leave it out", "model_id"),
        ({"output": "/tmp/x.mp4"}, "request output: is decided by the server", "output"),
        ({"lora": "/x.safetensors"}, "request lora: is decided by the server", "lora"),
        ({"vae": "/x"}, "request vae: is decided by the server", "vae"),
        ({"text_encoder": "/x"}, "request text_encoder: is decided by the server", "text_encoder"),
        ({"preset": "lightning"}, "request preset: is decided by the server", "preset"),
        ({"dtype": "float32"}, "request dtype: is decided by the server", "dtype"),
        ({"embedding_cache": "/tmp"}, "request embedding_cache: is decided by", "embedding_cache"),
        ({"prompt_enhancer": True}, "request prompt_enhancer: is decided by", "prompt_enhancer"),
        ({"jobs": "/etc/passwd"}, "request jobs: is decided by the server", "jobs"),
        ({"config": "/etc/passwd"}, "request config: no such option", "config"),
        ({"input_image": "/etc/passwd"}, "request input_image: must be a file that is up", "input_image"),
        ({"ref_imgs": ["http://10.0.0.1/a.png"]}, "request ref_imgs: must be a file", "ref_imgs"),
        ({"roll_prompts": "/etc/passwd"}, "request roll_prompts: must be a list", "roll_prompts"),
        ({"input_reference": "http://10.0.0.1/a"}, "input_reference: must be a base64 d", "input_reference"),
        ({"input_reference": {"file_id": "x"}}, "input_reference: must be a base64", "input_reference"),
    ],
)
def test_bad_requests_get_the_error_form(server, fields, message, param):
    answer = server.http.post("/v1/videos", json={**TEXT, **SHORT, **fields})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].startswith(message)
    assert error["param"].startswith(param)
    assert error["type"] == "invalid_request_error"


def test_no_option_for_clients_takes_a_path():
    """Every option whose value names something on this machine is the server's own."""
    allowed = {name for name, option in OPTIONS.items() if for_clients(option)} - {*KINDS}
    takes_paths = {name for name in allowed if OPTIONS[name].metavar.startswith(("PATH", "FILE", "DIR"))}
    assert takes_paths == {"roll_prompts"}, "which clients give as a list"
    assert {"prompt", "shift", "seed", "teacache", "task_type"} <= allowed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "/srv/videos/video_0a/video.mp4: No space left on device; free some space",
            "video.mp4: No space left",
        ),
        ("a file of '/home/my models/Wan 2.2/vae.pth' lacks x", "a file of 'vae.pth' lacks x"),
        (
            "neither /a/b.pth nor /c/d.pth (see docs/server.md)",
            "neither b.pth nor d.pth (see docs/server.md)",
        ),
        (
            f"no weights in {brief(Path('/home/user/' + 'x' * 60 + '/models/vae'))}; get",
            "no weights in vae; get",
        ),
        ("the folder /models is empty", "the folder models is empty"),
        (
            "Wan-AI/Wan2.2-TI2V-5B at 16/9: https://hf.co/a/b, 1 / 2",
            "Wan-AI/Wan2.2-TI2V-5B at 16/9: https://hf",
        ),
    ],
)
def test_clients_read_the_last_part_of_a_path(text, told):
    assert without_folders(text).startswith(told)
    for error in (OutputError(text), CheckpointError(text), InputError("--vae", None, text, "give another")):
        message = described(error)["message"]
        assert told in message
        assert " /" not in message.replace(" / ", "")
    assert described(OSError(text))["message"] == "an unexpected error; the server's log says more"


def test_a_field_is_named_without_the_path_behind_it():
    error = InputError("--model_id /srv/wan", None, "no such folder", "give an existing folder")
    assert explained(error) == ("model_id wan: no such folder; give an existing folder", "model_id")


@pytest.mark.parametrize(
    ("field", "content", "message"),
    [
        ("input_reference", b"no picture", "input_reference: is no picture, video or sound that can be read"),
        ("input_image", b"no picture", "input_image: "),
        ("input_image", b"<html></html>", "input_image: is a web page, not the file itself"),
        ("input_image", b"", "input_image: is empty"),
        ("input_video", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "input_video: is not a video"),
        ("input_image", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "input_image: "),
        ("lora", b"x", "request lora: is a file; files are input_reference, "),
        ("../../x", b"x", "request"),
    ],
)
def test_uploads_that_are_no_inputs(server, field, content, message):
    task = "single_shot_extension" if field == "input_video" else "image_to_video"
    fields = {"prompt": "a swan", "task_type": task}
    answer = server.http.post("/v1/videos", data=fields, files={field: ("../../a.png", io.BytesIO(content))})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(message)
    assert str(server.folder) not in answer.text
    left = {path.name for path in (server.folder / "videos").iterdir()}
    known = {job["id"] for job in server.http.get("/v1/videos?limit=100").json()["data"]}
    assert left <= known, "nothing is left of a request that was refused"


def test_an_upload_gets_a_name_of_ours(server):
    files = {"input_reference": ("../../../evil.png", (REFS / "robot.png").read_bytes())}
    fields = {"prompt": "it waves", "task_type": "reference_to_video", **SHORT}
    answer = server.http.post("/v1/videos", data=fields, files=files)
    assert answer.status_code == 200, answer.text
    folder = server.folder / "videos" / answer.json()["id"]
    assert (folder / "input_reference_0.png").is_file()
    assert not list(server.folder.parent.rglob("evil.png"))


def test_what_is_too_large_is_refused(server):
    big = io.BytesIO(bytes(101_000_000))
    fields = {"prompt": "x", "task_type": "image_to_video"}
    answer = server.http.post("/v1/videos", data=fields, files={"input_image": ("a.png", big)})
    assert answer.status_code == 400
    assert (
        answer.json()["error"]["message"] == "input_image a.png: is larger than 100 MB; send a smaller file"
    )
    for content in (b" " * 201_000_000, b" " * 41_000_000, b"[" + b"[]," * 200_000 + b"[]]"):
        answer = server.http.post("/v1/videos", content=content)
        assert answer.status_code == 413, len(content)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/videos/video_none", 404, "there is no video 'video_none'"),
        ("DELETE", "/v1/videos/video_none", 404, "there is no video 'video_none'"),
        ("POST", "/v1/videos/video_none/cancel", 404, "there is no video 'video_none'"),
        ("GET", "/v1/videos/video_none/content", 404, "there is no video 'video_none'"),
        ("GET", "/v1/videos/video_none/events", 404, "there is no video 'video_none'"),
        ("GET", "/v1/videos/..%2F..%2Fetc%2Fpasswd", 404, "there is no GET /v1/videos/../../etc/passwd"),
        ("GET", "/v1/videos?limit=0", 400, "limit: Input should be greater than or equal to 1"),
        ("GET", "/v1/videos?order=up", 400, "order: Input should be 'asc' or 'desc'"),
        ("GET", "/v1/videos?after=video_none", 404, "there is no video 'video_none'"),
        ("PUT", "/v1/videos", 404, "there is no PUT /v1/videos"),
        ("POST", "/v1/videos", 400, "request: must be a JSON object or a form; see docs/server.md"),
        ("GET", "/v1/nothing", 404, "there is no GET /v1/nothing"),
    ],
)
def test_all_errors_have_the_form(server, method, path, status, message):
    answer = server.http.request(method, path, content=b"[" if method == "POST" else None)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"] == message
