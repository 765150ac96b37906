"""Headers of GGUF files, through the gguf package, which is imported only for them."""

from pathlib import Path
from typing import NamedTuple

from videogen.errors import CheckpointError, reported_as

PLAIN = ("F32", "F16", "BF16")
QUANTIZED = (
    *("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K"),
    *("Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"),
)
MAGIC = b"GGUF"
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # key of the shape of a tensor that was stored in another


class GgufTensor(NamedTuple):
    """A tensor of a GGUF file; its shape is that of the numbers it stands for.

    Args:
        dtype: name of the format ("Q4_K").
        offset: of its bytes in the file.
        size: in bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    size: int


def tensors(file: Path) -> list[GgufTensor]:
    """Return the tensors of a GGUF file.

    Raises:
        CheckpointError: it is broken or truncated, holds a format that is not read, or gguf is not installed.
    """
    try:
        import gguf  # noqa: PLC0415 - optional, and only for these files
    except ImportError:
        raise CheckpointError(f"{file}: GGUF files need the package gguf; 'pip install gguf'") from None
    with reported_as(
        lambda why: CheckpointError(f"{file}: broken or truncated GGUF ({why}); download it again")
    ):
        with file.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                raise ValueError("it does not begin with GGUF")
        size = file.stat().st_size
        reader = gguf.GGUFReader(file)
        found = []
        for tensor in reader.tensors:
            shape = tuple(int(n) for n in reversed(tensor.shape))
            if (original := reader.fields.get(ORIGINAL_SHAPE + tensor.name)) is not None:
                shape = tuple(int(original.parts[index][0]) for index in original.data)
            end = int(tensor.data_offset) + int(tensor.n_bytes)
            if end > size:
                raise ValueError(f"{size:,} of at least {end:,} bytes are there")
            about = (tensor.tensor_type.name, int(tensor.data_offset), int(tensor.n_bytes))
            found.append(GgufTensor(tensor.name, shape, *about))
    if other := sorted({tensor.dtype for tensor in found} - {*PLAIN, *QUANTIZED}):
        known = ", ".join((*PLAIN, *QUANTIZED))
        raise CheckpointError(f"{file}: holds {', '.join(other)}, which is not read; use one of {known}")
    return found


def bytes_per_weight(dtype: str) -> float:
    """Return what a number takes in a format, with its share of the scales."""
    import gguf  # noqa: PLC0415 - optional

    per_block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[dtype]]
    return size / per_block
