"""Progress bars on a terminal, which is a pseudo-terminal here."""

import fcntl
import os
import pty
import re
import signal
import struct
import termios
import threading

import pytest

from tests.processes import Running

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")


def onto_terminal():
    os.dup2(os.open(os.environ["TEST_TERMINAL"], os.O_RDWR | os.O_NOCTTY), 2)


def all_onto_terminal():
    onto_terminal()
    os.dup2(2, 1)


class Terminal:
    """A terminal that remembers what was written to it."""

    def __init__(self, monkeypatch, columns):
        self.main, self.other = pty.openpty()
        fcntl.ioctl(self.other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.text = ""
        monkeypatch.setenv("TEST_TERMINAL", os.ttyname(self.other))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            try:
                self.text += os.read(self.main, 65536).decode(errors="replace")
            except OSError:
                return

    def run(self, *words):
        return Running(*words, before=onto_terminal)


@pytest.fixture(params=[120])
def terminal(monkeypatch, request):
    return Terminal(monkeypatch, request.param)


@pytest.mark.parametrize("terminal", [120, 0], indirect=True)  # some say that they have no columns
def test_bars_name_their_video(terminal, r2v, tmp_path):
    running = terminal.run(*r2v, "--seed", "4,5", "--output", tmp_path / "swan_{seed}.mp4", "--low_vram")
    code, out, _ = running.end()
    assert code == 0, terminal.text
    assert len(out.splitlines()) == 2
    for number, seed in enumerate((4, 5), 1):
        name = rf"{number}/2 swan_{seed}\.mp4 seed {seed}"
        assert re.search(rf"{name}: denoising: +100%\|.*\| 2/2 ", terminal.text), terminal.text
        assert re.search(rf"{name}: decoding: +100%\|.*\| 5/5 ", terminal.text)
    assert re.search(r"^.?video 2 of 2.*: seed 5, 48x32, 5 frames\r$", terminal.text, flags=re.MULTILINE)
    assert re.search(r"[\r\n]warning: --low_vram[^|]*?\r\n", terminal.text)  # a line of its own


def test_ctrl_c_is_answered_and_then_obeyed(terminal, r2v, tmp_path):
    running = terminal.run(*r2v, "--num_inference_steps", "1000", "--output", tmp_path / "a.mp4")
    running.wait_for(lambda: re.search(r"denoising: +\d+%\|.*\| [1-9]\d*/1000", terminal.text))
    running.send(signal.SIGINT)
    code, out, _ = running.end(30)
    assert (code, out) == (130, ""), terminal.text
    assert "stopping after this step; Ctrl-C again stops at once" in terminal.text
    assert terminal.text.rstrip().endswith("interrupted; nothing half-written was kept")
    assert "Traceback" not in terminal.text
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_a_note_once(terminal, r2v, tmp_path):
    words = (*r2v, "--seed", "4", "--output", tmp_path / "swan.mp4", "--offload", "--low_vram", "--dry_run")
    code, out, _ = terminal.run(*words).end()
    (note,) = re.findall(r"(?m)^note +(--offload.*)$", out)
    assert code == 0
    assert f"warning: {note}" in terminal.text.replace("\r\n", "\n")

    earlier = len(terminal.text)
    code, out, _ = Running(*words, before=all_onto_terminal).end()
    assert (code, out) == (0, "")
    assert terminal.text[earlier:].count(note) == 1
    assert f"note      {note}" in terminal.text[earlier:]

    earlier = len(terminal.text)
    Running(*words, "--json", before=all_onto_terminal).end()
    assert terminal.text[earlier:].count(note) == 2  # in the JSON, and for people
