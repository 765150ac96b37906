"""Names of the tensors of every network, a module each; ``tasks/table.py`` says which networks there are."""

from importlib import import_module

from videogen.checkpoints.key_maps import NetworkNames
from videogen.tasks import table

NETWORKS: tuple[NetworkNames, ...] = tuple(
    import_module(f"{__name__}.{name}").NETWORK for name in table.NETWORKS
)
