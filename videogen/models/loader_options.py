"""diffusers' options for loaders: what each means here, or what to do instead."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from videogen.errors import CallError, nearest
from videogen.tasks.options import OPTIONS

DOWNLOADS = ("token", "revision", "cache_dir", "local_files_only", "force_download")
AS_ALWAYS: Mapping[str, object] = {
    "low_cpu_mem_usage": True,
    "trust_remote_code": False,
    "force_download": False,
    "resume_download": True,
    "output_loading_info": False,
}
"""Options of which one value is what every loader does."""
INSTEAD = {
    "custom_pipeline": "diffusers.DiffusionPipeline runs community pipelines",
    "force_download": "`hf download --force-download ID` downloads again",
    "low_cpu_mem_usage": "weights are always mapped; leave it out",
    "max_memory": "it is for device_map='balanced' of a saved folder",
    "mirror": "set HF_ENDPOINT",
    "offload_folder": "use pipe.enable_model_cpu_offload()",
    "original_config": "give config=, a folder or hub id with a config.json",
    "output_loading_info": "missing and unexpected tensors are errors; leave it out",
    "proxies": "set HTTPS_PROXY",
    "quantization_config": "give transformer=, one that was loaded with it; float8 and GGUF files need none",
    "resume_download": "downloads go on where they ended; leave it out",
    "subfolder": "give the folder itself",
    "trust_remote_code": "no code of a model is run; leave it out",
}


def check_options(caller: str, options: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the options of a loader that say something, without those that ask for what it does anyway.

    Raises:
        CallError: one that it does not take; the message says what to do instead.
    """
    kept: dict[str, Any] = {}
    for name, value in options.items():
        if name in AS_ALWAYS and value in (AS_ALWAYS[name], None):
            continue
        if name in known:
            kept[name] = value
        elif name not in INSTEAD or value is not None:
            close = nearest(name, known)
            fix = INSTEAD.get(name, f"nearest {close}=" if close else "leave it out")
            raise CallError(f"{name}=", None, f"is no argument of {caller}", fix)
    return kept


def one_device(device_map: object) -> str | None:
    """Return the device that a ``device_map`` puts everything on, by name; None as given.

    Raises:
        CallError: several devices.
    """
    if isinstance(device_map, Mapping):
        places = {str(place) for place in device_map.values()}
        if len(places) != 1:
            what = "must be one device for all components"
            raise CallError("device_map=", dict(device_map), what, "for example 'cuda'")
        return places.pop()
    if device_map == "balanced":
        what = "is for folders that save_pretrained wrote"
        raise CallError("device_map=", device_map, what, "give one device, for example 'cuda'")
    if device_map == "auto":
        device_map = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    name = f"cuda:{device_map}" if isinstance(device_map, int) else device_map
    return None if name is None else str(name)


def dtype_of(given: torch.dtype | str) -> torch.dtype:
    """Return a dtype, which may be given by name.

    Raises:
        InputError: no dtype for weights.
    """
    dtype: torch.dtype = getattr(torch, OPTIONS["dtype"].value(given)) if isinstance(given, str) else given
    return dtype
