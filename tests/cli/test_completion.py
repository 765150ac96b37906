"""--completion: bash knows our flags, values and files."""

import subprocess

import pytest

from videogen.cli.chain import main as chain


@pytest.fixture
def complete(cli, tmp_path):
    """Return what bash offers for a command whose last word is not finished."""

    def offer(*words):
        finished = cli("--completion", "bash")
        assert finished.code == 0, finished.err
        (tmp_path / "videogen").write_text(finished.out)
        (tmp_path / "talk.wav").touch()
        script = """
            source ./videogen
            COMP_WORDS=(videogen "$@") COMP_CWORD=$#
            $(complete -p videogen | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
            printf '%s\\n' "${COMPREPLY[@]}"
        """
        done = subprocess.run(
            ["bash", "-c", script, "bash", *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    return offer


def test_flags_values_and_files(complete):
    assert {"--seed", "--save_latents"} <= complete("--s")
    assert "text_to_video" in complete("--task_type", "te")
    assert complete("--sample_solver", "un") == {"unipc"}
    assert "talk.wav" in complete("--input_audio", "ta")


def test_zsh_and_the_chain(cli, capsys):
    zsh = cli("--completion", "zsh").out
    assert zsh.startswith("#compdef videogen\n")
    (lora,) = (line for line in zsh.splitlines() if "--lora[" in line)
    assert lora.endswith(r':PATH|URL|OWNER/REPO\:FILE[\:scale[\:high|low]]:_files"')  # a plain colon ends it
    assert lora.lstrip().startswith('"*--lora')  # it may be given again
    assert chain(["--completion", "bash"]) == 0
    out = capsys.readouterr().out
    assert "videogen-continuous" in out
    assert "--num_videos" in out
    refused = cli("--completion", "fish")
    assert refused.code == 2
    assert "must be one of bash, zsh" in refused.complaint
