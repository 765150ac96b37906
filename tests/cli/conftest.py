"""Commands that several files run."""

import pytest


@pytest.fixture
def forcing():
    """The shortest diffusion_forcing command on the tiny model, without an output."""

    def words(*more, task="diffusion_forcing"):
        said = [str(word) for word in more]
        plain = (
            "--prompt",
            "a square moves",
            "--num_frames",
            "9",
            "--num_inference_steps",
            "2",
            "--seed",
            "1",
        )
        size = ("--height", "32", "--width", "48", "--device", "cpu")
        flags = [*("--task_type", task, "--model_id", "tiny"), *size, *plain]
        for flag in ("--prompt", "--num_frames"):
            if {flag, flag.replace("--prompt", "--roll_prompts")} & set(said) or "--captioner" in said:
                place = flags.index(flag) if flag == "--prompt" or flag in said else None
                if place is not None:
                    del flags[place : place + 2]
        return [*flags, *said]

    return words
