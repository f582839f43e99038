"""The trainings of a verb, wave by wave: a wave can train once those before it are in the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kdrun.command import roles
from kdrun.plan.objective import has_peers
from kdrun.plan.requests import RequestBuilder
from kdrun.spec import Spec
from kdrun.store import Artifact, Store
from kdrun.training.request import Request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One network of the run: a training that is requested, or an artifact that was named."""

    role: str
    training: Request | Artifact
    label: str = ""  # what the comparison calls it, where the role does not say it
    lane: str = ""  # which of several students it belongs to
    source: str = ""  # of a teacher that was named, as it was typed
    unverified: bool = False  # whether it is to be measured before anything learns from it

    @property
    def spec(self) -> Spec:
        """What identifies it, trained or not."""
        return self.training.spec

    @property
    def artifact(self) -> Artifact:
        """The training that was named, where one was."""
        assert isinstance(self.training, Artifact)
        return self.training

    @property
    def trust_key(self) -> str:
        """The key that spares a named teacher the measuring."""
        return self.source.partition("from=")[0] + "trust"

    @property
    def name(self) -> str:
        """Name it in a log line or an error."""
        return self.request.label if self.request else self.label or self.role

    @property
    def request(self) -> Request | None:
        """The training that is requested, if it is one."""
        return self.training if isinstance(self.training, Request) else None


def waves(builder: RequestBuilder, store: Store) -> list[list[Entry]]:
    """Return all networks of a verb that trains: the teacher, or the baselines, or teachers and all they teach.

    Raises ValueError for two teachers that are one training.
    """
    if builder.verb == "train_teacher":
        return [[Entry("teacher", builder.teacher())]]
    seeds = range(builder.cfg.seed, builder.cfg.seed + builder.cfg.seeds)
    if builder.verb == "train_baseline":
        return [[Entry("baseline", builder.baseline(seed)) for seed in seeds]]
    return _distillation(builder, seeds, store)


def _distillation(builder: RequestBuilder, seeds: Sequence[int], store: Store) -> list[list[Entry]]:
    """Return teachers, then each assistant, then the students with their baselines."""
    cfg = builder.cfg
    if has_peers(cfg):
        return [[entry for seed in seeds for entry in _peers(builder, seed)]]
    teachers = [
        _teacher(builder.for_part("teacher", part), part, store) for part in roles.teachers(cfg, builder.choices)
    ]
    _refuse_twins(teachers)
    taught = chain = [entry.spec for entry in teachers]
    found = [teachers]
    for part in roles.assistants(cfg, builder.choices):
        asked = builder.for_part("student", part)
        found.append([Entry("assistant", asked.student(int(asked.cfg.teacher.seed), chain, role="assistant"))])
        chain = [found[-1][0].spec]
    if cfg.generations:
        return [*found, *_generations(builder, seeds, taught)]
    small: list[Entry] = []
    for part in roles.students(cfg, builder.choices):
        own = builder.for_part("student", part)
        for seed in seeds:
            if cfg.transfer.labels:  # without labels nothing can be learned alone
                small.append(Entry("baseline", own.baseline(seed), lane=part.name))
            if chain is not taught:
                small.append(Entry("direct", own.student(seed, taught), lane=part.name))
            small.append(Entry("student", own.student(seed, chain), lane=part.name))
    return [*found, small]


def _teacher(builder: RequestBuilder, part: roles.Part, store: Store) -> Entry:
    label = "" if part.name in ("", part.model) else f"teacher {part.name}"
    own = f"teachers.{part.name}." if part.name else "teacher."
    named = builder.cfg.teacher["from"]
    source = "" if named is None else f"{own}from={named}"
    try:
        teacher = builder.pinned(store) or replace(builder.teacher(), name=label)
        foreign = "adopted" in teacher.spec.recipe or teacher.spec.data["digest"] != builder.dataset.digest
        return Entry("teacher", teacher, label, source=source, unverified=foreign and not builder.cfg.teacher.trust)
    except ValueError as error:
        raise ValueError(str(error).replace("teacher.from=", f"{own}from=", 1)) from None


def _refuse_twins(teachers: Sequence[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in teachers:
        if (other := seen.setdefault(entry.spec.fingerprint, entry)) is not entry:
            first, second = (e.name.removeprefix("teacher ") for e in (other, entry))
            raise ValueError(
                f"teachers {first} and {second} are the same training; teachers.{second}.seed="
                f"{entry.spec.seed + 1} makes another of it"
            )


def _peers(builder: RequestBuilder, seed: int) -> Iterator[Entry]:
    parts = roles.students(builder.cfg, builder.choices, peers=True)
    if len(parts) < 2:
        raise ValueError(
            f"students=[{parts[0].name}]: one network has no peers; list two or more, or leave students out"
        )
    own = [builder.for_part("student", part) for part in parts]
    for i, part in enumerate(parts):
        yield Entry("baseline", own[i].baseline(seed), lane=part.name)
        twin = f"peer {part.name}" + (f" ({part.model})" if part.name != part.model else "")
        asked = replace(own[i].peers(seed, [*own[:i], *own[i + 1 :]]), name=twin)
        yield Entry("student", asked, "peer", part.name)


def _generations(builder: RequestBuilder, seeds: Sequence[int], teachers: Sequence[Spec]) -> Iterator[list[Entry]]:
    """Born-again networks: each generation learns from the one before, the first from the teacher.

    Every generation starts from other weights (Furlanello et al. 2018, section 3); the baseline from those of
    the first.
    """
    (part,) = roles.students(builder.cfg, builder.choices)
    own = builder.for_part("student", part)
    count = int(builder.cfg.generations)
    before = {seed: list(teachers) for seed in seeds}
    for k in range(1, count + 1):
        wave: list[Entry] = []
        for seed in seeds:
            if k == 1 and builder.cfg.transfer.labels:
                wave.append(Entry("baseline", own.baseline(seed)))
            child = replace(own.student(seed, before[seed], init=k), name=f"generation {k} {part.model}")
            wave.append(Entry("student" if k == count else "generation", child, f"generation {k}"))
            before[seed] = [child.spec]
        yield wave


def requested(entries: Sequence[Entry]) -> list[Request]:
    """Return the trainings that are requested, without the artifacts that were named."""
    return [entry.request for entry in entries if entry.request is not None]


def teachable(entry: Entry, store: Store) -> bool:
    """Return whether all that a network learns from is there; what diverged teaches nobody, and that is logged."""
    for fingerprint in entry.spec.teachers if entry.request is not None else ():
        teacher = store.find(fingerprint)
        if teacher is None or not teacher.finished:
            log.warning("%s: left out, since %s diverged, which it was to learn from", entry.name, fingerprint)
            return False
    return True
