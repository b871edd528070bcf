"""A base too large for one device: its layers stand in pieces on all of them, by FSDP2 or by DeepSpeed's ZeRO-3.

Before a layer runs, forward or backward, its weights are gathered from all processes, and dropped afterwards. What is
frozen has no gradient and no optimiser state, so weights are all there is to share out. Adapters come later and stay
whole on every process; embedding, final norm and output head, which are read outside of any layer, do too.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pipeline import processes
from pipeline.lm.sources import ModelError

OFFLOAD = "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE"  # accelerate's, set by `offload_param_device` in its config file


def wanted() -> bool:
    """Whether several processes were launched with accelerate's configuration for FSDP or DeepSpeed."""
    return processes.world() > 1 and (processes.switched(processes.FSDP) or processes.switched(processes.DEEPSPEED))


def shard(base: Any, device: torch.device) -> None:
    """Share out the layers of a base that is still in the CPU's memory; the rest goes to `device` whole.

    Raises:
        ModelError: its trunk isn't a list of layers, it is quantised, or DeepSpeed isn't installed.
    """
    layers = getattr(base.base_model, "layers", None)
    if layers is None:
        raise ModelError(f"{base.config.model_type}: its layers aren't known, so they can't be shared out; use DDP")
    if getattr(base.config, "quantization_config", None) is not None:
        raise ModelError("model.quantization: a quantised base can't be shared out; set it to none, or use DDP")
    if processes.switched(processes.DEEPSPEED):
        _zero3(layers, device)
    else:
        _fsdp2(base, layers, device)
    base.to(device)


def _fsdp2(base: Any, layers: Iterable[nn.Module], device: torch.device) -> None:
    mesh = init_device_mesh(device.type, (processes.world(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    rest = {id(parameter) for layer in layers for parameter in layer.parameters()}
    whole = {parameter for parameter in base.parameters() if id(parameter) not in rest}
    fully_shard(base.base_model, mesh=mesh, reshard_after_forward=False, ignored_params=whole)


def _zero3(layers: Iterable[nn.Module], device: torch.device) -> None:
    """DeepSpeed cuts the weights, and keeps the pieces in the CPU's memory if accelerate's config says so.

    Its engine, which would gather weight by weight and partition adapters too, isn't used: fused layers read all of
    a layer's weights, so a layer is what is gathered.
    """
    try:
        import deepspeed
    except ImportError:
        raise ModelError(
            "DeepSpeed isn't installed: pip install 'align-pipeline[deepspeed]', or launch with "
            "configs/accelerate/fsdp2.yaml, which does the same without it"
        ) from None
    deepspeed.init_distributed("nccl" if device.type == "cuda" else "gloo", verbose=False)
    remote = os.environ.get(OFFLOAD, "none")
    turns = _Turns()
    for layer in layers:
        deepspeed.zero.Init(layer, mem_efficient_linear=False, remote_device=remote, pin_memory=remote == "cpu")
        turns.follow(layer)


class _Turns:
    """Of layers in pieces, the one at work is whole: whoever is next is gathered, and the one before dropped."""

    def __init__(self) -> None:
        self._whole: list[Any] = []

    def follow(self, layer: nn.Module) -> None:
        """Gather a layer's present weights whenever it runs forward or backward."""
        own = list(layer.parameters())
        layer.register_forward_pre_hook(lambda *_: self._take(own))
        layer.register_full_backward_pre_hook(lambda *_: self._take(own))

    def _take(self, own: list[Any]) -> None:
        if own is self._whole:
            return
        if self._whole:
            self._whole[0].partition(self._whole)
        own[0].all_gather(own)
        self._whole = own
