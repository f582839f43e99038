"""One training by several processes, each with its own device and its share of every batch.

What they compute is what one process would, but for the order of floating-point sums, and for BatchNorm on a
CPU (see `sync_batch_norm`). Each process runs its share through the networks. Outputs are gathered, and every process
computes the whole objective of the whole batch: a relation between samples, a bank of memories or a mean over
unequal shares is right without any loss knowing of processes. The gradient of a gathered output leads back
from a process's own rows into its own network, so the sum over the processes is the network's gradient; that of
the losses' own parameters is whole in every process.

torch's DistributedDataParallel adds up the gradients of the network, with three settings of its own. It adds
where it would take the mean. It looks for parameters that the objective does not reach, such as the last layer
under a loss on embeddings alone: those keep no gradient, and weight decay does not move them. And for the same
setting it never regroups its buckets after the first step: they would add in another order than those of a
resumed training, which is to end bit for bit as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdrun import torchrun
from kdrun.data.batches import Batch, counted
from kdrun.models.base import Outputs
from kdrun.store import RunFailed
from kdrun.training.stop import Interrupted, StopFlag

STUCK = timedelta(minutes=10)  # a process that others have waited for as long will not come
IDLE = timedelta(days=365)  # between trainings the others wait for the first as long as it takes
T = TypeVar("T")


class Ranks:
    """The processes that train together, seen from one of them; by default there is only this one.

    The first, rank 0, runs the command and alone writes; the others run its trainings. All must call the same
    methods in the same order: most wait for the others.
    """

    def __init__(self, rank: int = 0, count: int = 1, idle: Any = None) -> None:
        self.rank, self.count = rank, count
        self.broken = ""  # why no further training is possible
        self._idle = idle  # the group for what may take for ever

    @property
    def leads(self) -> bool:
        """Whether this is the process that runs the command."""
        return self.rank == 0

    def refuse_small(self, label: str, batch_size: int) -> None:
        """Raise ValueError for a batch that has less than two images for each process: BatchNorm needs two."""
        if batch_size < 2 * self.count and self.count > 1:
            fit = f", or --nproc-per-node {batch_size // 2}" if batch_size >= 4 else ""
            raise ValueError(
                f"{label}: {self.count} processes share each batch, and batch_size={batch_size} is less than two "
                f"images for each; type a recipe.batch_size of at least {2 * self.count}{fit}"
            )

    # what the first tells the others

    def broadcast(self, value: T | None) -> T:
        """Return rank 0's value; the others' does not matter."""
        return self._broadcast(value, None) if self.count > 1 else cast(T, value)

    def send(self, job: object) -> None:
        """Let the others, which wait for it, have their next job. Raises RunFailed where they no longer listen."""
        if self.broken:
            raise RunFailed(self.broken)
        with self.collective():
            self._broadcast(job, self._idle)

    def receive(self) -> Any:
        """Wait for the next job."""
        return self._broadcast(None, self._idle)

    def _broadcast(self, value: T | None, group: Any) -> T:
        box = [value]
        dist.broadcast_object_list(box, src=0, group=group, device=torch.device("cpu"))
        return cast(T, box[0])

    @torch.no_grad()
    def broadcast_tensors(self, *tensors: Tensor) -> None:
        """Overwrite tensors with those of rank 0."""
        if self.count == 1:
            return
        kinds: dict[Any, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for alike in kinds.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            dist.broadcast(flat, src=0)
            for tensor, values in zip(alike, torch.split(flat, [t.numel() for t in alike]), strict=True):
                tensor.copy_(values.view(tensor.shape))

    # one step

    def sync_batch_norm(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Let BatchNorms, exchanged in place, take the statistics of the whole batch: on GPUs.

        torch has no such kernel for a CPU: there each process normalises by its own share, and rank 0's averages
        are kept.
        """
        if self.count == 1 or device.type != "cuda":
            return network
        made: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return made

    def data_parallel(self, network: nn.Module) -> nn.Module:
        """Return what is called in the network's place in training, so that its gradients are those of all."""
        if self.count == 1 or not any(p.requires_grad for p in network.parameters()):
            return network
        wrapped = DistributedDataParallel(network, find_unused_parameters=True)
        wrapped.broadcast_buffers = False  # rank 0's are taken once an epoch
        wrapped.register_comm_hook(None, _sum)
        return wrapped

    def gather(self, outputs: Outputs, batch: Batch) -> Outputs:
        """Return the outputs for the whole of a batch from those of this process's share, once they are read."""
        return cast(Outputs, _GatheredOutputs(self, outputs, len(batch.whole.labels))) if self.count > 1 else outputs

    def gather_rows(self, own: Tensor, length: int) -> Tensor:
        """Join the rows of all processes to a batch of `length`; the gradient flows to this process's own."""
        sizes = counted(length, self.count)
        last = own.ndim == 4 and own.is_contiguous(memory_format=torch.channels_last)
        with torch.enable_grad():  # once read without a gradient, it may be read with one
            mine = (own.permute(0, 2, 3, 1) if last else own)[: sizes[self.rank]]
            sent = mine.detach().contiguous()
            if len(sent) < max(sizes):
                sent = torch.cat([sent, sent.new_zeros(max(sizes) - len(sent), *sent.shape[1:])])
            everyone = sent.new_empty(self.count * len(sent), *sent.shape[1:])
            dist.all_gather_into_tensor(everyone, sent)
            parts = [part[:size] for part, size in zip(torch.split(everyone, len(sent)), sizes, strict=True)]
            parts[self.rank] = mine
            whole = torch.cat(parts)
        return whole.permute(0, 3, 1, 2) if last else whole

    def average_gradients(self, module: nn.Module) -> None:
        """Take the mean of gradients that every process has in whole, so that no last digit sets them apart."""
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        if self.count == 1 or not grads:
            return
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        flat /= self.count
        for grad, values in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
            grad.copy_(values.view(grad.shape))

    # one epoch

    def gather_batches(self, parts: Sequence[Tensor], device: torch.device) -> Tensor:
        """Join what was dealt out in turn, in its order; every process gets the whole."""
        if self.count == 1:
            return torch.cat(list(parts))
        kinds: list[Any] = [None] * self.count
        dist.all_gather_object(kinds, [(part.shape, part.dtype) for part in parts])
        most = max(sum(shape[0] for shape, _ in own) for own in kinds)
        shape, dtype = kinds[0][0]
        sent = torch.zeros(most, *shape[1:], dtype=dtype, device=device)
        if parts:
            rows = torch.cat(list(parts))
            sent[: len(rows)] = rows
        everyone = sent.new_empty(self.count * most, *shape[1:])
        dist.all_gather_into_tensor(everyone, sent)
        dealt = [
            torch.split(rows, [*(s[0] for s, _ in own), most - sum(s[0] for s, _ in own)])
            for rows, own in zip(torch.split(everyone, most), kinds, strict=True)
        ]
        count = sum(map(len, kinds))
        return torch.cat([dealt[number % self.count][number // self.count] for number in range(count)])

    def shared_stop(self, stop: StopFlag) -> StopFlag:
        """Return a flag that all processes see raised after the same batch, whichever of them a signal reached."""
        return _SharedStop(stop) if self.count > 1 else stop

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Hold what all processes do in step: where it fails in one of them, no further training is possible."""
        if self.count == 1:
            yield
            return
        try:
            yield
        except Interrupted:  # on which all agree
            raise
        except BaseException as error:
            self.broken = f"an earlier training failed in the midst of it ({error}); type the same command again"
            if isinstance(error, torch.OutOfMemoryError):
                raise RunFailed(
                    f"out of memory in process {self.rank} of {self.count}; type a smaller recipe.batch_size, or more "
                    "processes with --nproc-per-node"
                ) from error
            if gone(error):
                self.broken = (
                    f"one of the {self.count} processes that train together is gone, or has not answered for "
                    f"{STUCK.seconds // 60} minutes; the same command resumes"
                )
                raise RunFailed(self.broken) from error
            raise


ALONE = Ranks()
_ranks: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)  # those of the command, set once as it starts


def current() -> Ranks:
    """Return the processes that this command's trainings are split over."""
    return _ranks.get()


def join() -> Ranks:
    """Meet the other processes that torchrun started."""
    cuda = dist.is_nccl_available() and torch.cuda.device_count() >= torchrun.processes_here()
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=STUCK)
    idle = dist.new_group(backend="gloo", timeout=IDLE)
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), idle)
    _ranks.set(ranks)
    return ranks


def gone(error: BaseException) -> bool:
    """Return whether an error means that another process is no longer there, or does not answer."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "closed by peer"))
    )


class _GatheredOutputs:
    """Outputs of all processes for a batch, gathered one by one as a loss reads them, in the order it does."""

    def __init__(self, ranks: Ranks, own: Outputs, length: int) -> None:
        self._ranks, self._own, self._length = ranks, own, length
        self.features = _GatheredMaps(self, own.features)
        self.preactivations = _GatheredMaps(self, own.preactivations)

    @cached_property
    def logits(self) -> Tensor:
        return self.rows(self._own.logits)

    @cached_property
    def embedding(self) -> Tensor:
        return self.rows(self._own.embedding)

    def rows(self, own: Tensor) -> Tensor:
        return self._ranks.gather_rows(own, self._length)


class _GatheredMaps(Mapping[str, Tensor]):
    """Feature maps by name, each gathered when it is first read."""

    def __init__(self, whole: _GatheredOutputs, own: Mapping[str, Tensor]) -> None:
        self._whole, self._own, self._read = whole, own, dict[str, Tensor]()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._read:
            self._read[name] = self._whole.rows(self._own[name])
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._own))

    def __len__(self) -> int:
        return len(self._own)


class _SharedStop(StopFlag):
    """A flag that is raised in all processes at once. Asking takes part in a vote, so all ask alike often.

    The vote that a batch begins is counted after the next one: nobody waits, and a process that has died is
    noticed.
    """

    def __init__(self, own: StopFlag) -> None:
        super().__init__()
        self._own, self._vote = own, torch.zeros(1, dtype=torch.int32)
        self._pending: Any = None

    def after_batch(self) -> bool:
        """Whether to stop after this batch; once for each."""
        self._count()
        self._vote.fill_(self._own.raised)
        self._pending = dist.all_reduce(self._vote, op=dist.ReduceOp.MAX, async_op=True)
        return self.raised

    def check(self) -> None:
        """Raise Interrupted in all processes once a signal has come to one."""
        self.after_batch()
        self._count()
        super().check()

    def _count(self) -> None:
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
            self.raised = self.raised or bool(self._vote.item())


def _sum(_, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations, and these would be strings
    """Add up a bucket of gradients over all processes; torch's own way takes the mean."""
    added = dist.all_reduce(bucket.buffer(), async_op=True)
    return added.get_future().then(lambda done: done.value()[0])
