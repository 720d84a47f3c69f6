"""Recognition networks, one a file. ``build`` makes one from its config."""

from __future__ import annotations

from typing import Final

from models.har.attention import Attention
from models.har.base import HarConfig, HarNetwork
from models.har.cnn import Cnn
from models.har.deepconvlstm import DeepConvLstm
from models.har.tinier import Tinier
from models.har.tinyhar import TinyHar
from quantization.errors import BundleError

NETWORKS: Final[dict[str, type[HarNetwork]]] = {
    "cnn": Cnn,
    "tinier": Tinier,
    "tinyhar": TinyHar,
    "attention": Attention,
    "deepconvlstm": DeepConvLstm,
}

__all__ = ["NETWORKS", "HarConfig", "HarNetwork", "build"]


def build(config: HarConfig) -> HarNetwork:
    """The network of ``config``, freshly initialised.

    Raises:
        BundleError: no network of that name.
    """
    if config.kind not in NETWORKS:
        raise BundleError(f"no network is called {config.kind!r}; there are {', '.join(NETWORKS)}")
    return NETWORKS[config.kind](config)
