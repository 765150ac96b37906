"""Running out of memory is exit 4 with advice, wherever it happens and however it is spelled."""

import errno
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from videogen.cli.main import verdict
from videogen.errors import CheckpointError, InputError, is_out_of_memory

SPELLINGS = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cuda": RuntimeError("CUDA error: out of memory"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    "hip": RuntimeError("hipErrorOutOfMemory"),
    "oneDNN": RuntimeError("could not create a primitive"),
    "oneDNN memory": RuntimeError("could not create a memory object"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cudnn 9": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    "c++": RuntimeError("std::bad_alloc"),
    "allocator": RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes."
    ),
    "not enough": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    "mmap": RuntimeError("unable to mmap 99 bytes from file </m>: Cannot allocate memory (12)"),
    "python": MemoryError(),
    "system": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "thread": RuntimeError("can't start new thread"),
}
OTHERS = {
    "memory access": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "quoted": InputError("--input_video", "out of memory.mp4", "no such file", "check the path"),
}


def raised_by(action):
    """Return the exception that an action ends with."""
    with pytest.raises(Exception) as caught:
        action()
    return caught.value


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_known(name):
    error = SPELLINGS[name]

    def fail():
        raise error

    def as_cause():
        raise CheckpointError("cannot be loaded") from error

    def as_context():
        try:
            fail()
        except Exception:
            raise CheckpointError("cannot be loaded") from None

    def in_a_thread():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(fail).result()

    def in_a_group():
        raise ExceptionGroup("several", [ValueError("x"), error])

    for action in (fail, as_cause, as_context, in_a_thread, in_a_group):
        code, told = verdict(raised_by(action))
        assert code == 4
        assert told.startswith("out of memory; close other programs, or try --offload")


@pytest.mark.parametrize("name", OTHERS)
def test_other_errors_are_not_taken_for_it(name):
    assert not is_out_of_memory(OTHERS[name])


@pytest.mark.parametrize(
    ("module", "function", "advice"),
    [
        ("videogen.cli.main", "make_plans", "close other programs"),  # before any model
        ("videogen.engine.session", "fetch", "close other programs"),
        ("videogen.engine.load", "load_pipeline", "try a smaller --resolution or fewer --num_frames"),
        ("videogen.engine.session", "write", "try a smaller --resolution or fewer --num_frames"),
    ],
)
@pytest.mark.parametrize("name", ["torch", "oneDNN", "python", "system", "thread"])
def test_it_is_told_wherever_it_happens(cli, r2v, tmp_path, monkeypatch, module, function, advice, name):
    def fail(*args, **kwargs):
        raise SPELLINGS[name].with_traceback(None)

    if function == "fetch":
        monkeypatch.setattr(f"{module}.Session.fetch", fail)
    else:
        monkeypatch.setattr(f"{module}.{function}", fail)
    finished = cli(*r2v, "--output", tmp_path / "a.mp4")
    assert finished.code == 4
    assert finished.complaint.startswith("error: out of memory; ")
    assert advice in finished.complaint
    assert not list(tmp_path.iterdir())
