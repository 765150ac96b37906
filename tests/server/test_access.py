"""Who may use the server."""

import socket

import pytest

from tests.server.conftest import live


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[x"])
def test_other_host_names_are_refused_on_loopback(server, host):
    answer = server.http.get("/v1/videos", headers={"Host": host})
    assert answer.status_code == 400
    assert "does not name this machine" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "[::1]:8000"])
def test_names_of_this_machine_are_accepted(server, host):
    assert server.http.get("/v1/videos", headers={"Host": host}).status_code == 200


def test_pages_of_other_sites_are_refused(server):
    answer = server.http.post("/v1/videos", data={"prompt": "x"}, headers={"Origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "invalid_request_error")
    for origin in ("null", "http://[x"):
        assert server.http.get("/v1/videos", headers={"Origin": origin}).status_code == 403
    assert server.http.get("/healthz", headers={"Origin": server.url}).status_code == 200


@pytest.mark.slow
def test_a_token_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOGEN_TOKEN", "sesame")
    with live(tmp_path, "--host", "0.0.0.0") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        get, http = (lambda path, **more: http.get(f"{url}{path}", **more)), server.http
        assert get("/healthz").status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer sesam"},
            {"Authorization": "sesame"},
            {"Cookie": b"videogen_token=\xe9"},
        ):
            for path in ("/", "/v1/videos", "/metrics", "/nothing"):
                answer = get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
        assert get("/v1/videos", headers={"Authorization": "Bearer sesame"}).status_code == 200
        assert get("/?token=wrong").status_code == 401
        answer = get("/?token=sesame")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert get("/v1/videos").status_code == 200, "with the cookie"


SERVE = ("--serve", "--model_id", "tiny")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            (*SERVE, "--host", "0.0.0.0"),
            "--host 0.0.0.0: can be reached from other machines, so clients must send a token; add --token, "
            "or set VIDEOGEN_TOKEN",
        ),
        (("--serve",), "--serve: must know which model it is for; add --model_id, --task_type or both"),
        ((*SERVE, "--host", "192.0.2.1", "--token", "x"), "--host 192.0.2.1: cannot be used"),
        ((*SERVE, "--token", "пароль"), "--token: must be ASCII, as all that HTTP headers hold; choose"),
        ((*SERVE, "--output", "a.mp4"), "--output: is for one video, not for a server; leave it out"),
        ((*SERVE, "--use_usp"), "--use_usp: is for one video, not for a server; leave it out"),
        ((*SERVE, "--jobs", "a.txt"), "--serve: not together with --jobs; choose one of the two"),
        (("--port", "80", "--task_type", "text_to_video"), "--port: is about the server; add --serve"),
        (("--serve", "--model_id", "/nowhere"), "--model_id /nowhere: "),
        (("--serve", "--model_id", "/nowhere", "--task_type", "text_to_video"), "--model_id /nowhere: "),
    ],
)
def test_what_it_cannot_be_started_with(cli, monkeypatch, tmp_path, flags, message):
    monkeypatch.delenv("VIDEOGEN_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    finished = cli(*flags)
    assert finished.code in (2, 3)
    assert finished.complaint.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_a_port_in_use(cli, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        finished = cli(*SERVE, "--port", port, "--output_dir", tmp_path)
    assert finished.code == 2
    assert finished.complaint == f"error: --port {port}: is in use; end what uses it, or try {port + 1}"


def test_a_folder_is_for_one_server(server, cli):
    finished = cli(*SERVE, "--port", 0, "--output_dir", server.folder)
    assert finished.code == 2
    assert "is another server's" in finished.complaint


def test_a_missing_package_is_named(cli, monkeypatch):
    from videogen.cli import serving

    monkeypatch.setattr(serving, "PACKAGES", ("no_such_package",))
    assert cli(*SERVE).complaint == (
        "error: --serve: needs the package no_such_package, not installed; pip install 'videogen[serve]'"
    )
