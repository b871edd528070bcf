"""A base too large for one device: its layers stand in pieces on all of them, as FSDP2 (which is ZeRO-3) does it.

Before a layer runs, forward or backward, its weights are gathered from all processes, and dropped afterwards. What is
frozen has no gradient and no optimiser state, so weights are all there is to share out. Adapters come later and stay
whole on every process; embedding, final norm and output head, which are read outside of any layer, do too.
"""

import os
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pipeline import processes
from pipeline.lm.sources import ModelError

SWITCH = "ACCELERATE_USE_FSDP"  # accelerate's, set by `distributed_type: FSDP` in its config file


def wanted() -> bool:
    """Whether several processes were launched with accelerate's configuration for FSDP."""
    return processes.world() > 1 and os.environ.get(SWITCH, "false").lower() == "true"


def shard(base: Any, device: torch.device) -> None:
    """Share out the layers of a base that is still in the CPU's memory; the rest goes to `device` whole.

    Raises:
        ModelError: its trunk isn't a list of layers, or it is quantised.
    """
    layers = getattr(base.base_model, "layers", None)
    if layers is None:
        raise ModelError(f"{base.config.model_type}: its layers aren't known, so they can't be shared out; use DDP")
    if getattr(base.config, "quantization_config", None) is not None:
        raise ModelError("model.quantization: a quantised base can't be shared out; set it to none, or use DDP")
    mesh = init_device_mesh(device.type, (processes.world(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    rest = {id(parameter) for layer in layers for parameter in layer.parameters()}
    whole = {parameter for parameter in base.parameters() if id(parameter) not in rest}
    fully_shard(base.base_model, mesh=mesh, reshard_after_forward=False, ignored_params=whole)
    base.to(device)
