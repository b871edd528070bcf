"""AdamW in the kinds that a config may ask for."""

import importlib
from collections.abc import Iterable
from typing import Any

import torch

from pipeline.config import ConfigError, OptimizerName

# bitsandbytes' classes; moments of 8 bits in blocks of 256 (Dettmers et al. 2022), tensors below 4,096 weights in fp32.
EIGHT_BIT = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}


def make_optimizer(kind: OptimizerName, parameters: Iterable[Any], **options: Any) -> torch.optim.Optimizer:
    """AdamW over `parameters` (or groups of them), with torch's names for its options.

    adamw keeps 8 bytes a weight; adamw_8bit 2; paged_adamw_8bit lets a GPU move those to the host when memory runs out
    (without a GPU it is adamw_8bit).

    Raises:
        ConfigError: bitsandbytes is missing.
    """
    if kind == "adamw":
        return torch.optim.AdamW(parameters, **options)
    try:
        optim: Any = importlib.import_module("bitsandbytes.optim")
    except ImportError as error:
        raise ConfigError(f"optimizer {kind}: {error}; pip install bitsandbytes") from None
    return getattr(optim, EIGHT_BIT[kind])(parameters, **options)  # type: ignore[no-any-return]
