"""What users of diffusers try next works, or is refused in one line that says what to do."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import videogen
from videogen.errors import CheckpointError, InputError
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.text_to_video import TextToVideoPipeline
from videogen.pipelines.wan22_a14b import Wan22A14BPipeline

SIZE = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 1, "output_type": "latent"}


@pytest.fixture(scope="module")
def pipeline():
    return videogen.load("text_to_video", "tiny", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    pipeline.save_pretrained(folder)
    return folder


def make(pipe, **more):
    return pipe("a cat", generator=torch.Generator().manual_seed(0), **SIZE, **more).frames


@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        pytest.param(lambda pipe: pickle.loads(pickle.dumps(pipe)), marks=pytest.mark.slow),
        TextToVideoPipeline.from_pipe,
        lambda pipe: TextToVideoPipeline(**pipe.components),
    ],
    ids=["copy", "deepcopy", "pickle", "from_pipe", "components"],
)
def test_a_copy_makes_the_same(pipeline, again):
    assert torch.equal(make(again(pipeline)), make(pipeline))


def test_from_pipe_keeps_the_defaults_of_the_model():
    pipe = videogen.load("text_to_video", "tiny:wan22-a14b", dtype=torch.float32, device="cpu")
    made = Wan22A14BPipeline.from_pipe(pipe)
    assert (made.row, made.checkpoint) == (pipe.row, pipe.checkpoint)
    assert made.scheduler.config.flow_shift == pipe.scheduler.config.flow_shift


def test_without_a_vae_latents_are_made_from_latents(pipeline):
    pipe = TextToVideoPipeline(**{**pipeline.components, "vae": None})
    noise = torch.randn((1, 16, 2, 4, 6), generator=torch.Generator().manual_seed(0))
    assert torch.equal(make(pipe, latents=noise), make(pipeline, latents=noise))
    with pytest.raises(InputError, match="vae: is None, and says the size of latents; give latents="):
        make(pipe)
    with pytest.raises(InputError, match=r"output_type= np: needs a vae; set pipe.vae, or take 'latent'"):
        pipe("a cat")


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        (["a", "b"], {}, r"arguments 2: only the prompt is taken by its place; name the others"),
        (["a"], {"prompt": "b"}, "prompt=: is given twice"),
        (["a"], {"seed": 1}, r"seed=: .* give generator=torch.Generator"),
        (["a"], {"callback": print}, "callback=: .* give callback_on_step_end="),
        (["a"], {"guidance_scale_2": 3.0}, r"guidance_scale_2=: .* give guidance_scale=\(for low"),
        (["a"], {"sigmas": [1.0]}, "sigmas=: .* set pipe.scheduler"),
        (
            [],
            {"prompt_embeds": torch.zeros(1, 5, 3)},
            r"prompt_embeds= \[1, 5, 3\]: must be \[prompts, rows, 32\]",
        ),
        (
            [],
            {"prompt_embeds": torch.zeros(5, 32)},
            r"prompt_embeds= \[5, 32\]: must be \[prompts, rows, width\]",
        ),
    ],
)
def test_arguments_that_are_something_else_here(pipeline, given, arguments, message):
    with pytest.raises(InputError, match=message):
        pipeline(*given, **SIZE, **arguments)


def test_what_is_no_transformer_is_refused(pipeline):
    with pytest.raises(InputError, match="transformer= Linear: TextToVideoPipeline takes a WanDiT"):
        TextToVideoPipeline(**{**pipeline.components, "transformer": torch.nn.Linear(1, 1)})
    with pytest.raises(InputError, match=r"transformer: is None; set pipe.transformer"):
        make(TextToVideoPipeline(**{**pipeline.components, "transformer": None}))
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors: no such file"):
        WanDiT.from_single_file("nowhere.safetensors")


def test_a_list_without_an_image_is_none():
    pipe = videogen.load("reference_to_video", "tiny", dtype=torch.float32, device="cpu")
    with pytest.raises(InputError, match="ref_imgs=: none given"):
        make(pipe, ref_imgs=[])


def test_an_image_may_be_an_array():
    pipe = videogen.load("image_to_video", "tiny", dtype=torch.float32, device="cpu")
    picture = Image.new("RGB", (48, 32), "red")
    assert torch.equal(make(pipe, image=np.asarray(picture)), make(pipe, image=picture))
    with pytest.raises(
        InputError, match=r"input_image= ndarray: must be PIL images or uint8 arrays \[H, W, 3\]"
    ):
        make(pipe, image=np.zeros((32, 48, 3)))


def test_diffusers_first_argument_is_told_its_name():
    pipe = videogen.load("image_to_video", "tiny", dtype=torch.float32, device="cpu")
    with pytest.raises(InputError, match="name the others, as in image="):
        pipe(Image.new("RGB", (48, 32)), "a cat", **SIZE)


USED = [
    {"device_map": "cpu"},
    {"device_map": torch.device("cpu")},
    {"device_map": {"transformer": "cpu", "vae": "cpu"}},
    {"low_cpu_mem_usage": True, "trust_remote_code": False, "force_download": False, "proxies": None},
    {"token": "x", "revision": "main", "variant": None},
    {"vae": None},
]


@pytest.mark.parametrize("options", USED, ids=str)
@pytest.mark.parametrize("published", [True, False])
def test_options_of_loaders_that_are_used(saved, options, published):
    opened = TextToVideoPipeline.from_pretrained("tiny" if published else saved, **options)
    assert {part.device.type for part in (opened.transformer, opened.text_encoder)} == {"cpu"}
    assert ("vae" in options) == (opened.vae is None)


def test_dtypes_may_be_names(saved):
    for source in ("tiny", saved):
        opened = TextToVideoPipeline.from_pretrained(source, torch_dtype="bfloat16")
        assert opened.text_encoder.dtype == torch.bfloat16


REFUSED = [
    ({"device_map": {"transformer": "cuda:0", "vae": "cuda:1"}}, "device_map= .*: must be one device"),
    ({"device_map": "gpu"}, "gpu: is no device; give auto, cpu, cuda"),
    ({"max_memory": {0: "10GB"}}, "max_memory=: .* it is for device_map='balanced' of a saved folder"),
    ({"low_cpu_mem_usage": False}, "low_cpu_mem_usage=: .* weights are always mapped"),
    ({"trust_remote_code": True}, "trust_remote_code=: .* no code of a model is run"),
    ({"custom_pipeline": "x"}, "custom_pipeline=: .* community pipelines"),
    ({"subfolder": "x"}, "subfolder=: .* give the folder itself"),
    ({"force_download": True}, "force_download=: .*hf download --force-download"),
    ({"proxies": {"https": "x"}}, "proxies=: .* set HTTPS_PROXY"),
    ({"safety_checker": None}, "safety_checker=: is no argument of from_pretrained; leave it out"),
    ({"torch_dtype": {"transfomer": torch.float16}}, "transfomer: is no component; .* nearest transformer"),
    (
        {"dtype": torch.float16, "torch_dtype": torch.float32},
        "dtype=: is torch_dtype= .* give one",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_options_of_loaders_that_are_refused(saved, options, message):
    for source in ("tiny", saved):
        with pytest.raises(InputError, match=message):
            TextToVideoPipeline.from_pretrained(source, **options)


def test_models_in_several_places_or_formats_are_of_saved_folders(saved):
    opened = TextToVideoPipeline.from_pretrained(saved, device_map="balanced", max_memory={"cpu": "9GB"})
    assert opened.transformer.device.type == "cpu"
    with pytest.raises(InputError, match="device_map= balanced: is for folders that save_pretrained wrote"):
        TextToVideoPipeline.from_pretrained("tiny", device_map="balanced")
    with pytest.raises(InputError, match=r"quantization_config= .* give transformer="):
        TextToVideoPipeline.from_pretrained("tiny", quantization_config={"a": 1})


def test_a_single_file_takes_a_device_and_no_unknown_option(saved):
    file = saved / "transformer/diffusion_pytorch_model.safetensors"
    about = {"config": saved, "subfolder": "transformer"}
    found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    assert WanDiT.from_single_file(file, **about, device_map="auto").device.type == found.type
    for options in ({"device_map": "cpu"}, {"device_map": {"": "cpu"}}, {"device": torch.device("cpu")}):
        opened = WanDiT.from_single_file(file, "float16", **about, **options, low_cpu_mem_usage=True)
        assert (opened.device.type, opened.dtype) == ("cpu", torch.float16)
    for options, message in (
        ({"quantization_config": 1}, "quantization_config=: .* float8 and GGUF files need none"),
        ({"original_config": "x"}, "original_config=: .* give config="),
        ({"confg": "x"}, "confg=: is no argument of from_single_file"),
    ):
        with pytest.raises(InputError, match=message):
            WanDiT.from_single_file(file, **about, **options)
