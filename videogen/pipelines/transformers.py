"""Transformers given to a pipeline: ours, or diffusers' of the same network, which are taken over."""

from typing import get_type_hints

from diffusers import DiffusionPipeline, ModelMixin

from videogen.errors import CheckpointError, InputError
from videogen.models.components import take_over

ADVICE = "videogen.load(task, model=...) and {}.from_pretrained(...) load one"


def own_transformer(pipeline: type[DiffusionPipeline], name: str, given: object) -> object:
    """Return a transformer of a pipeline as the class that its constructor names.

    Raises:
        InputError: a model of diffusers that cannot be that.
    """
    wanted = get_type_hints(pipeline.__init__).get(name, object)
    kind, fix = type(given).__name__, ADVICE.format(wanted.__name__)
    if given is not None and not hasattr(given, "config"):  # a compiled model has its own's
        raise InputError(f"{name}=", kind, f"{pipeline.__name__} takes a {wanted.__name__}", fix)
    if not isinstance(given, ModelMixin) or isinstance(given, wanted):
        return given
    if isinstance(wanted, type) and issubclass(wanted, type(given)):  # ours is diffusers' with more facts
        given.__class__ = wanted
        return given
    try:
        ours = take_over(given)
    except CheckpointError as error:
        why = str(error).removesuffix("; check --model_id")
        raise InputError(f"{name}=", kind, f"cannot become a {wanted.__name__} ({why})", fix) from None
    if not isinstance(ours, wanted):
        raise InputError(f"{name}=", kind, f"{pipeline.__name__} takes a {wanted.__name__}", fix)
    return ours
