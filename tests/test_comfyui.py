"""The ComfyUI nodes, with what they use of ComfyUI in its place: its progress bar and its way to stop."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import videogen
from tests.conftest import ROOT
from tests.sounds import tone
from videogen.errors import InputError

VIDEO = {"prompt": "a swan", "num_frames": 5, "width": 48, "height": 32, "options": "num_inference_steps: 2"}
SAME = {"num_frames": 5, "width": 48, "height": 32, "num_inference_steps": 2, "device": "cpu"}
OWN, BASIC = {"VIDEOGEN_MODEL", "IMAGE", "IMAGE,VIDEO", "AUDIO"}, {"STRING": str, "INT": int, "BOOLEAN": bool}


class ProcessingError(Exception):
    """What ComfyUI raises where a run is to stop."""


@pytest.fixture
def comfy(monkeypatch):
    """ComfyUI: ``shown`` is what its bar showed; ``calls`` counts down to an interrupt."""
    state = SimpleNamespace(shown=[], unloaded=0, calls=None)

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            state.shown.append((value, total))

    def throw_exception_if_processing_interrupted():
        if state.calls is not None:
            state.calls -= 1
            if state.calls < 0:
                state.calls = None
                raise ProcessingError

    def unload_all_models():
        state.unloaded += 1

    package, utils, management = map(ModuleType, ("comfy", "comfy.utils", "comfy.model_management"))
    utils.ProgressBar = package.utils = ProgressBar
    package.utils, package.model_management = utils, management
    management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
    management.unload_all_models = unload_all_models
    for module in (package, utils, management):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return state


@pytest.fixture
def nodes(comfy):
    """The module as ComfyUI imports it: by its folder, under a name that is no package's."""
    spec = importlib.util.spec_from_file_location(
        "/ComfyUI/custom_nodes/videogen", ROOT / "comfyui/__init__.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def value_of(kind, facts):
    """Return what a widget holds when it is new."""
    return facts.get("default", kind[0] if isinstance(kind, list) else None)


@pytest.fixture
def execute(nodes):
    """Return a function that runs a node as ComfyUI's executor does, with new widgets otherwise."""

    def run(name, **inputs):
        node = nodes.NODE_CLASS_MAPPINGS[name]
        declared = node.INPUT_TYPES()
        assert inputs.keys() <= declared["required"].keys() | declared.get("optional", {}).keys()
        widgets = {key: value_of(*spec) for key, spec in declared["required"].items() if len(spec) == 2}
        with torch.inference_mode():
            outputs = getattr(node(), node.FUNCTION)(**widgets | inputs)
        assert len(outputs) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        return outputs

    return run


@pytest.fixture
def model(execute):
    """Return a function that loads a tiny model for a task."""

    def load(task="text_to_video"):
        return execute("VideogenLoadModel", task=task, model_id="tiny", device="cpu")[0]

    return load


def test_the_nodes_keep_to_the_contract(nodes):
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    assert list(nodes.NODE_DISPLAY_NAME_MAPPINGS.values()) == ["videogen: load model", "videogen: make video"]
    for node in nodes.NODE_CLASS_MAPPINGS.values():
        assert node.CATEGORY == "videogen"
        assert callable(getattr(node, node.FUNCTION))
        declared = node.INPUT_TYPES()
        assert declared.keys() <= {"required", "optional"}
        for kind, *facts in (spec for group in declared.values() for spec in group.values()):
            if isinstance(kind, list):
                assert value_of(kind, *facts) in kind
            elif kind in BASIC:
                assert isinstance(facts[0]["default"], BASIC[kind])
            else:
                assert kind in OWN


def test_what_is_loaded_otherwise_is_said_by_the_model_node(nodes):
    widgets = nodes.LoadModel.INPUT_TYPES()["required"]
    assert widgets.keys() >= {
        "task",
        "model_id",
        "revision",
        "dtype",
        "offload",
        "low_vram",
        "quantize",
        "lora",
    }
    assert widgets["dtype"][0] == ["default", "bfloat16", "float16", "float32"]
    assert "talking_avatar" in widgets["task"][0]


def test_frames_are_those_of_generate(comfy, execute, model, tmp_path):
    loaded = model()
    images, fps, audio = execute("VideogenMakeVideo", model=loaded, **VIDEO, seed=7)
    made = videogen.generate(
        "text_to_video", "a swan", model="tiny", seed=7, **SAME, output=tmp_path / "a.npy"
    )
    np.testing.assert_array_equal((images * 255).round().numpy(), made.frames)
    assert (images.dtype, float(images.min()) >= 0, float(images.max()) <= 1) == (torch.float32, True, True)
    assert (fps, audio, comfy.unloaded) == (24.0, None, 1)
    assert [shown for shown in comfy.shown if shown[1] == 2] == [(1, 2), (2, 2)]  # steps
    assert all(0 <= value <= total for value, total in comfy.shown)


def test_the_model_stays_loaded_unless_told_otherwise(execute, model, nodes):
    loaded = model()
    assert loaded["queue"] is model()["queue"]  # of all model nodes
    execute("VideogenMakeVideo", model=loaded, **VIDEO)
    pipeline = loaded["queue"].session.pipeline
    execute("VideogenMakeVideo", model=loaded, **VIDEO, seed=1)
    assert loaded["queue"].session.pipeline is pipeline is not None
    execute("VideogenMakeVideo", model=loaded, **VIDEO, seed=2, keep_loaded=False)
    assert loaded["queue"].session.pipeline is None
    del loaded
    assert not nodes.queues  # what ComfyUI forgets is gone


def test_a_run_is_stopped_and_another_goes_on(comfy, execute, model):
    loaded = model()
    comfy.calls = 12  # some events later
    with pytest.raises(ProcessingError):
        execute("VideogenMakeVideo", model=loaded, **VIDEO)
    assert comfy.calls is None
    images, *_ = execute("VideogenMakeVideo", model=loaded, **VIDEO)
    assert images.shape == (5, 32, 48, 3)


def test_images_of_several_sizes(execute, model, tmp_path):
    wide, high = (torch.rand(1, *size, 3) for size in ((32, 64), (64, 32)))
    given = {"ref_imgs_1": wide, "ref_imgs_3": high}
    images, *_ = execute("VideogenMakeVideo", model=model("reference_to_video"), **VIDEO, **given)
    pictures = [Image.fromarray((picture[0] * 255).round().byte().numpy()) for picture in (wide, high)]
    made = videogen.generate(
        *("reference_to_video", "a swan"),
        **{**SAME, "model": "tiny", "seed": 42, "ref_imgs": pictures, "output": tmp_path / "a.npy"},
    )
    np.testing.assert_array_equal((images * 255).round().numpy(), made.frames)


def test_videos_and_sounds(nodes, tmp_path):
    frames = torch.rand(3, 8, 8, 4)  # with transparency
    video = SimpleNamespace(get_components=lambda: SimpleNamespace(images=frames))
    for given in (video, frames):
        (read_back,) = nodes.converted("video", given, tmp_path)
        np.testing.assert_array_equal(read_back, (frames[..., :3] * 255).round().byte().numpy())
    sound = tone(1.0)
    audio = {"waveform": torch.from_numpy(sound)[None, None], "sample_rate": 16000}
    (path,) = nodes.converted("audio", audio, tmp_path)
    np.testing.assert_array_equal(soundfile.read(path, dtype="float32")[0], sound)


def test_a_talking_avatar_comes_with_its_sound(execute, model):
    loaded = model("talking_avatar")
    audio = {"waveform": torch.from_numpy(tone(1.0, 44100)).expand(1, 2, -1), "sample_rate": 44100}
    options = "{num_inference_steps: 1, max_frames_num: 30}"
    images, fps, sound = execute(
        *("VideogenMakeVideo",),
        **{"model": loaded, "prompt": "she talks", "width": 48, "height": 32, "options": options},
        **{"input_image": torch.rand(1, 32, 48, 3), "input_audio": audio},
    )
    assert (sound["sample_rate"], tuple(sound["waveform"].shape[:2])) == (44100, (1, 2))
    assert abs(sound["waveform"].shape[2] / 44100 - len(images) / fps) < 0.1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"options": "num_steps: 3"}, "num_steps: no such option; use --num_inference_steps"),
        ({"options": "20 steps"}, "options 20 steps: must be names and values"),
        ({"options": "output: a.mp4"}, "options output: is the node's own; leave it out"),
        ({"options": "save-file: a.mp4"}, "options output: is the node's own; leave it out"),
        ({"options": "20: 2"}, "20: no such option"),
        ({"num_frames": 6}, "--num_frames 6: must be 4k[+]1; nearest 5 or 9"),
        ({"input_image": torch.zeros(2, 8, 8, 3)}, "input_image [(]2 images[)]: .*; leave out 1"),
    ],
    ids=["unknown", "words", "own", "alias", "no_word", "number", "images"],
)
def test_what_is_wrong_is_said_in_a_line(execute, model, given, said):
    with pytest.raises(InputError, match=said):
        execute("VideogenMakeVideo", model=model(), **{**VIDEO, **given})
