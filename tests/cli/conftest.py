"""Commands that several files run."""

import pytest


@pytest.fixture
def forcing():
    """The shortest diffusion_forcing command on the tiny model, without an output."""

    def words(*more, task="diffusion_forcing"):
        said = [str(word) for word in more]
        has_prompt = {"--roll_prompts", "--captioner"} & set(said)
        return [
            *(
                "--task_type",
                task,
                "--model_id",
                "tiny",
                "--height",
                "32",
                "--width",
                "48",
                "--device",
                "cpu",
            ),
            *("--num_frames", "9", "--num_inference_steps", "2", "--seed", "1"),
            *([] if has_prompt else ["--prompt", "a square moves"]),
            *said,  # of a flag that is there twice the last counts
        ]

    return words
