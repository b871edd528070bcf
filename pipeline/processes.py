"""Several processes that run one program together: `accelerate launch --num_processes 2 scripts/run.py CONFIG`.

Every process reads the same rows, draws the same random numbers and takes the same decisions. Only passes through the
model are shared out: a process runs its own of the `batches`, writes what they give into tensors that are zero
elsewhere, and `add` makes them whole on every process. Gradients are sums too, over denominators of the whole batch, so
that shares of any size give the gradient of one process. Process 0 writes and speaks.

Alone, where no group was joined, all of this does nothing.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Items = TypeVar("Items", bound="Sequence[Any] | Tensor")
TIMEOUT = timedelta(hours=1)  # for what is silent; a process that has ended is noticed at once
# accelerate's switches, set by `distributed_type: FSDP` or `DEEPSPEED` in its config file
FSDP, DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"
LOST = ("gloo", "nccl", "connection", "socket", "timed out", "broken pipe")  # how the libraries speak of a lost one
_group: Any = None  # accelerate's PartialState while the processes are joined


class ProcessError(ValueError):
    """The processes can't go on together; the message says what to do."""


def rank() -> int:
    """This process's number, as the launcher gave it."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """Its number on this machine, which is also its GPU's."""
    return int(os.environ.get("LOCAL_RANK", 0))


def launched() -> int:
    """How many the launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def switched(name: str) -> bool:
    """Whether one of the launcher's switches is on."""
    return os.environ.get(name, "false").lower() == "true"


def main() -> bool:
    """Whether this process writes and speaks."""
    return rank() == 0


def world() -> int:
    """How many have joined."""
    return 1 if _group is None else _group.num_processes  # type: ignore[no-any-return]


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Work together while the block runs: over NCCL where each has a GPU of its own, else over gloo.

    Raises:
        ProcessError: another process has ended, or was silent for `TIMEOUT`; or DeepSpeed was asked for another stage
            than 3.
    """
    global _group
    if launched() == 1 or _group is not None:
        yield
        return
    if switched(DEEPSPEED) and (stage := os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")) != "3":
        raise ProcessError(
            f"DeepSpeed's stage {stage or '(of deepspeed_config_file)'} isn't known here: take zero_stage: 3, as in "
            "configs/accelerate/zero3.yaml; or ddp.yaml, for stages 1 and 2 share out gradients and optimiser, of "
            "which adapters have next to none"
        )
    import torch
    from accelerate import PartialState
    from accelerate.utils import patch_environment

    gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    try:
        with patch_environment(**{DEEPSPEED: "false"}):  # it would start an engine; only layers are DeepSpeed's here
            _group = PartialState(cpu=not gpu, backend="cuda:nccl,cpu:gloo" if gpu else "gloo", timeout=TIMEOUT)
        yield
        wait()
        _group.destroy_process_group()
    except RuntimeError as error:
        if any(word in str(error).lower() for word in LOST):
            raise ProcessError(
                "another process of this run has ended or doesn't answer; what it said last tells why. Run the same "
                "command to go on from the newest checkpoint"
            ) from error
        raise
    finally:
        _group = None


def batches(items: Items, size: int) -> Iterator[tuple[Items, bool]]:
    """This process's batches of the items: consecutive ones, even, of at most `size`, as many as the others have.

    Where there aren't enough items for everybody, a process gets the first one again and hears that it doesn't count:
    processes must meet in the same passes, if only to hand each other their parts of a model.

    Yields:
        (batch, whether it counts).
    """
    everybody = world()
    count = everybody * -(-len(items) // (everybody * size)) if len(items) else 0
    for number in range(rank() if everybody > 1 else 0, count, everybody):
        batch: Any = items[len(items) * number // count : len(items) * (number + 1) // count]
        stand_in: Any = items[:1]
        yield (batch, True) if len(batch) else (stand_in, False)


def add(*tensors: "Tensor") -> None:
    """Make each tensor the sum over all processes, in place. Whoever holds zeros leaves the others' bits alone."""
    _reduce(tensors, "SUM")


def combine(parameters: Iterable["Tensor"], sums: "Tensor", maxima: "Tensor") -> None:
    """After the passes of an optimiser's step: add up gradients and `sums`, take the largest of `maxima`, in place."""
    add(sums, *(parameter.grad for parameter in parameters if parameter.grad is not None))
    _reduce([maxima], "MAX")


def told(say: Callable[[], T]) -> T:
    """What process 0 finds, on every process."""
    if world() == 1:
        return say()
    from accelerate.utils import broadcast_object_list

    (found,) = broadcast_object_list([say() if main() else None])
    return found  # type: ignore[no-any-return]


def each(value: T) -> list[T]:
    """Everybody's value, by number."""
    if world() == 1:
        return [value]
    from torch.distributed import all_gather_object

    found: list[Any] = [None] * world()
    all_gather_object(found, value)
    return found


def anyone(flag: bool) -> bool:
    """Whether it holds for any process."""
    if world() == 1:
        return flag
    import torch

    asked = torch.tensor(int(flag))
    _reduce([asked], "MAX")
    return bool(asked)


def wait() -> None:
    """Until everybody is here."""
    anyone(False)


@contextmanager
def one_by_one() -> Iterator[None]:
    """The first process of every machine runs the block before the others: what it leaves on disk, they find."""
    if world() == 1:
        yield
        return
    with _group.local_main_process_first():
        yield


def alike(parameters: Iterable["Tensor"]) -> None:
    """Give every process the values of process 0's."""
    if world() == 1:
        return
    from torch.distributed import broadcast

    for parameter in parameters:
        broadcast(parameter.detach(), src=0)


def _reduce(tensors: Iterable["Tensor"], how: str) -> None:
    """One message for all tensors of a kind."""
    if world() == 1:
        return
    import torch
    from torch.distributed import ReduceOp, all_reduce

    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.numel():
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        joint = torch.cat([tensor.detach().reshape(-1) for tensor in alike])
        all_reduce(joint, op=getattr(ReduceOp, how))
        for tensor, part in zip(alike, joint.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))
