"""The processes of one training: the rank of this process, and how processes exchange values.

Usually there is one process. If there are several, torchrun or Ray Train (ray_train.py) starts
them, and they form a torch.distributed group: nccl between GPUs, gloo between CPUs. Each process
takes its own part of every batch. The result is the same for any number of processes, up to the
order of sums, with two exceptions. Batch norm in training mode sees only the part of its own
process, and each process draws its own dropout.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flowprep.errors import TrainingError
from flowprep.learn.placement import choose_device

__all__ = ["Process", "gradients_kept", "join_processes"]

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """One of the processes of a training."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    group: Any = None
    """The gloo group that carries CPU tensors and objects. None for a single process."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the elementwise sum over all processes, on the CPU."""
        values = values.detach().cpu().clone()
        if self.group is not None:
            dist.all_reduce(values, group=self.group)
        return values

    def share(self, value: T) -> T:
        """Returns the main process's `value` in every process."""
        if self.group is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Returns the `value` of every process, by rank, in every process."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def share_buffers(self, model: nn.Module) -> None:
        """Copies the main process's buffers (the running means of batch norms) to every process."""
        if self.group is not None:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def joined(self, model: nn.Module) -> DistributedDataParallel | None:
        """Returns what adds up the gradients of all processes; None for a single process.

        It knows the parameters that learn now. Make a new one when others begin to learn.
        """
        if self.world_size == 1:
            return None
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids)


def gradients_kept(
    distributed: DistributedDataParallel | None, is_last_part: bool
) -> AbstractContextManager[Any]:
    """Lets processes add up their gradients only after the last part of a batch."""
    if distributed is None or is_last_part:
        return nullcontext()
    return distributed.no_sync()


@contextmanager
def join_processes(device_name: str) -> Iterator[Process]:
    """Yields this process's place among the processes of the training.

    An existing group is used: Ray Train made it. If torchrun's environment variables are set, this
    joins torchrun's group and leaves it at the end. Otherwise this is the only process.
    """
    in_group = dist.is_available() and dist.is_initialized()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Slurm sets some of these too, for its own purposes. Only torchrun sets all of them.
    is_started = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    if not in_group and not (is_started and os.environ["WORLD_SIZE"] != "1"):
        yield Process(device)
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_torchrun()
    if not in_group:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        group = dist.new_group(backend="gloo")
        yield Process(device, dist.get_rank(), dist.get_world_size(), group)
    except RuntimeError as error:
        # Ray Train hears of the end of a worker by itself, and starts another.
        if in_group or not _is_lost_peer(error):
            raise
        raise TrainingError(
            "another process of this training ended, and without it this one cannot go on "
            f"({str(error).strip().splitlines()[-1]}); look for its message, and run the same "
            "command again: it goes on from last.pt"
        ) from error
    finally:
        if not in_group:
            dist.destroy_process_group()


def _is_lost_peer(error: RuntimeError) -> bool:
    """Says whether a collective failed because a process that takes part in it is gone."""
    # gloo's errors are plain RuntimeErrors, which only their texts tell apart.
    signs = ("Connection closed by peer", "Connection reset by peer", "Connection refused")
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in signs)


def _end_with_torchrun() -> None:
    """Lets Linux send this process SIGTERM when torchrun ends, also if torchrun is killed."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
