"""One training by several ranks (processes), each with its own device and its share of every batch.

The result is that of one process, except for the order of floating-point sums and for BatchNorm on a CPU (see
`sync_batch_norm`). Each rank runs its share through the networks. Outputs are gathered, and every rank computes the
objective on the whole batch, so that relations between samples, memory banks and means over unequal shares are right
although losses know nothing of ranks. The gradient of a gathered output flows through a rank's own rows into its own
network, so the sum over the ranks is the network's gradient; the gradients of the losses' own parameters are
complete on every rank.

torch's DistributedDataParallel reduces the gradients of the network, with two changes. A communication hook sums
them, because the default is the mean. find_unused_parameters=True handles parameters that the objective does not
reach, such as the last layer under a loss on embeddings alone: they get no gradient, so weight decay does not move
them. It also keeps DDP from rebuilding its buckets after the first step, which would change the order of sums: a
resumed training would then not end bit for bit like an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdrun import memory, torchrun
from kdrun.data.batches import Batch, counted
from kdrun.files import RunFailed
from kdrun.memory import OutOfMemory
from kdrun.models.base import Outputs
from kdrun.signals import Interrupted, StopFlag
from kdrun.training.gathered import GatheredOutputs

STUCK = timedelta(minutes=10)  # timeout of a collective within a training
IDLE = timedelta(days=365)  # timeout between trainings: the other ranks wait for rank 0 as long as it takes
T = TypeVar("T")


class Ranks:
    """The ranks that train together, seen from one of them; by default there is only this one.

    Rank 0 runs the command and is the only one that writes files; the others take part in its trainings. All ranks must
    call the same methods in the same order, because most are collectives.
    """

    def __init__(self, rank: int = 0, count: int = 1, idle: Any = None) -> None:
        self.rank, self.count = rank, count
        self.broken = ""  # why no further training is possible
        self._idle = idle  # the process group without a practical timeout

    @property
    def leads(self) -> bool:
        """Return whether this is rank 0, which runs the command."""
        return self.rank == 0

    def refuse_small(self, label: str, batch_size: int) -> None:
        """Raise ValueError if a batch has less than two images per rank, which BatchNorm needs."""
        if batch_size < 2 * self.count and self.count > 1:
            fit = f", or --nproc-per-node {batch_size // 2}" if batch_size >= 4 else ""
            raise ValueError(
                f"{label}: {self.count} processes share each batch, and batch_size={batch_size} is less than two "
                f"images for each; type a recipe.batch_size of at least {2 * self.count}{fit}"
            )

    # what rank 0 sends to the others

    def broadcast(self, value: T | None) -> T:
        """Return rank 0's value on every rank."""
        return self._broadcast(value, None) if self.count > 1 else cast(T, value)

    def send(self, job: object) -> None:
        """Send the next job to the other ranks, which wait for it. Raise RunFailed if they are out of step or gone."""
        if self.broken:
            raise RunFailed(self.broken)
        with self.collective():
            self._broadcast(job, self._idle)

    def receive(self) -> Any:
        """Wait for the next job of rank 0 and return it."""
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
        """Replace BatchNorm layers by SyncBatchNorm on GPUs, so that statistics are those of the whole batch.

        torch has no SyncBatchNorm for CPUs: there, each rank normalises with statistics of its own share, and rank 0's
        running averages are kept.
        """
        if self.count == 1 or device.type != "cuda":
            return network
        made: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return made

    def data_parallel(self, network: nn.Module) -> nn.Module:
        """Return the network in a wrapper, to be called in training, that sums its gradients over the ranks."""
        if self.count == 1 or not any(p.requires_grad for p in network.parameters()):
            return network
        wrapped = DistributedDataParallel(network, find_unused_parameters=True)
        wrapped.broadcast_buffers = False  # rank 0's are broadcast once an epoch
        wrapped.register_comm_hook(None, _sum)
        return wrapped

    def gather(self, outputs: Outputs, batch: Batch) -> Outputs:
        """Return the outputs for the whole batch, gathered from each rank's share; each is gathered when first read."""
        if self.count == 1:
            return outputs
        length = len(batch.whole.labels)
        return cast(Outputs, GatheredOutputs(outputs, lambda own: self.gather_rows(own, length)))

    def gather_rows(self, own: Tensor, length: int) -> Tensor:
        """Concatenate the rows of all ranks to a batch of `length`; the gradient flows to this rank's own rows."""
        sizes = counted(length, self.count)
        last = own.ndim == 4 and own.is_contiguous(memory_format=torch.channels_last)
        with torch.enable_grad():  # it may first be read without a gradient and later with one
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
        """Average gradients that are complete on every rank, so that the ranks do not drift apart by rounding."""
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
        """Concatenate batches that were dealt to the ranks in turn, in their original order, on every rank."""
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
        """Return a flag that is raised on all ranks after the same batch, whichever rank received a signal."""
        return _SharedStop(stop) if self.count > 1 else stop

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Mark code that all ranks run in step: if it fails on one of them, no further training is possible."""
        if self.count == 1:
            yield
            return
        try:
            yield
        except Interrupted:  # raised on all ranks
            raise
        except BaseException as error:
            self.broken = f"an earlier training failed ({error}); type the same command again"
            if memory.ran_out(error):
                raise OutOfMemory(
                    f"out of memory in process {self.rank} of {self.count}; type a smaller recipe.batch_size, or more "
                    "processes with --nproc-per-node"
                ) from error
            if gone(error):
                self.broken = (
                    f"one of the {self.count} processes that train together has ended, or has not answered for "
                    f"{STUCK.seconds // 60} minutes; the same command resumes"
                )
                raise RunFailed(self.broken) from error
            raise


ALONE = Ranks()
_ranks: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)  # the command's ranks, set once at its start


def current() -> Ranks:
    """Return the ranks of this command."""
    return _ranks.get()


def join() -> Ranks:
    """Initialise the process groups with the other processes that torchrun started, and return the ranks."""
    cuda = dist.is_nccl_available() and torch.cuda.device_count() >= torchrun.processes_here()
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=STUCK)
    idle = dist.new_group(backend="gloo", timeout=IDLE)
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), idle)
    _ranks.set(ranks)
    return ranks


def gone(error: BaseException) -> bool:
    """Return whether an error means that another rank is gone or does not answer."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "closed by peer"))
    )


class _SharedStop(StopFlag):
    """A flag that is raised on all ranks after the same batch; its methods are collectives.

    The result of the all-reduce that starts after a batch is read after the next one, so that no rank waits for it.
    The all-reduce also fails if another rank has died.
    """

    def __init__(self, own: StopFlag) -> None:
        super().__init__()
        self._own, self._vote = own, torch.zeros(1, dtype=torch.int32)
        self._pending: Any = None

    def after_batch(self) -> bool:
        """Return whether to stop after this batch; call it once per batch."""
        self._count()
        self._vote.fill_(self._own.raised)
        self._pending = dist.all_reduce(self._vote, op=dist.ReduceOp.MAX, async_op=True)
        return self.raised

    def check(self) -> None:
        """Raise Interrupted on all ranks once any rank has received a signal."""
        self.after_batch()
        self._count()
        super().check()

    def _count(self) -> None:
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
            self.raised = self.raised or bool(self._vote.item())


def _sum(_, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations, and these would be strings
    """Sum a bucket of gradients over all ranks; torch's default is the mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])
