"""Options that contradict each other, trade quality for speed or need packages: errors and warnings.

Without torch: packages are looked for, not imported.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from videogen.errors import InputError
from videogen.tasks.kernels import ATTENTION_KERNELS, Package
from videogen.tasks.options import OPTIONS, Options
from videogen.tasks.step_caches import KINDS, read_cache

DISTILLED_STEPS = 8  # the most that weights made for LCM's stepping are published with


PACKAGES = {
    kernel.option: kernel.package
    for kernel in ATTENTION_KERNELS.values()
    if kernel.option is not None and kernel.package is not None
}
TORCHAO = Package("torchao", "pip install torchao")


def check_combination(values: Mapping[str, object]) -> None:
    """Refuse options that contradict each other, or lack another that they need.

    Raises:
        InputError: the first one.
    """
    for name in (name for name in OPTIONS if values.get(name)):
        option = OPTIONS[name]
        for other in option.excludes:
            if values.get(other):
                raise InputError(option.flag, None, f"not together with --{other}", "choose one of the two")
        if (needed := option.needs) and not values.get(needed.option):
            raise InputError(option.flag, None, needed.reason, f"add --{needed.option}, or leave it out")


def may_be_added(name: str, options: Options) -> bool:
    """Return whether an option is not set, contradicts none that is, and has an effect beside them."""
    option = OPTIONS[name]
    against = {name, *option.excludes, *option.useless_with}
    against |= {other.name for other in OPTIONS.values() if name in other.excludes}
    return not any(getattr(options, other) for other in against)


def check(options: Options) -> None:
    """Refuse what cannot be, as far as that is known without torch.

    Raises:
        InputError: the first thing.
    """
    _check_backend(options.attention_backend, options.device)
    if options.cache is not None:
        _check_cache(options.cache, options)
    if options.float8_matmul:
        _check_float8(options)
    if options.quantize:
        _check_package("--quantize", options.quantize, TORCHAO)


def _check_backend(name: str, device: str) -> None:
    if (package := PACKAGES.get(name)) is not None:
        _check_package("--attention_backend", name, package)
    if name not in ("auto", "native") and device in ("cpu", "mps"):
        what = f"does not run on {device}"
        raise InputError("--attention_backend", name, what, "use native, or leave it out")


def _check_package(flag: str, given: str | None, package: Package) -> None:
    if find_spec(package.module) is None:
        raise InputError(flag, given, f"needs the package {package.module}, not installed", package.how)


def _check_cache(cache: str, options: Options) -> None:
    name, threshold = read_cache(cache)
    if options.compile and KINDS[name].in_blocks:
        what = "works inside the blocks, so not together with --compile"
        raise InputError("--cache", name, what, "use taylorseer_lite, or leave one of the two out")
    if options.use_usp and (threshold is None or KINDS[name].local):
        given = cache if threshold is None else name
        what = "must see all tokens, so not together with --use_usp"
        fix = "measure on one GPU" if threshold is None else "use magcache"
        raise InputError("--cache", given, what, fix)


def _check_float8(options: Options) -> None:
    flag = "--float8_matmul"
    if options.device in ("cpu", "mps"):
        what = f"needs a GPU of compute capability 8.9 or more, not {options.device}"
        raise InputError(flag, None, what, "leave it out")
    if options.dtype != "bfloat16":
        raise InputError(flag, None, f"needs bfloat16 weights, not {options.dtype}", "add --dtype bfloat16")
    _check_package(flag, None, TORCHAO)


def warnings(options: Options) -> Iterator[str]:
    """Yield warnings, one line each."""
    if options.sample_solver == "lcm":
        yield from _lcm_warnings(options)
    if options.float8_matmul and not options.compile:
        yield "--float8_matmul is only worthwhile with --compile, which fuses the cast into the matmul"


def _lcm_warnings(options: Options) -> Iterator[str]:
    """Warn where weights were probably not distilled to LCM (Wan's four-step LoRA: shift 5, no guidance)."""
    if not options.lora:
        yield "--sample_solver lcm is for weights distilled to a few steps, usually a --lora; others blur"
    if options.guided:
        yield "--sample_solver lcm: distilled weights want --guidance_scale 1, which is also faster"
    if (steps := options.num_inference_steps) > DISTILLED_STEPS:
        yield f"--sample_solver lcm takes {steps} steps; distilled weights want their own number, usually 4"
