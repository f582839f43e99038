"""The trainings of a verb, wave by wave: a wave can train once those before it are in the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kdrun.artifact import Artifact
from kdrun.command import roles
from kdrun.plan.objective import has_peers
from kdrun.plan.requests import RequestBuilder
from kdrun.spec import Spec
from kdrun.store import Store
from kdrun.training.request import Request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One network of a command: a training that is requested, or an artifact that was named."""

    role: str
    training: Request | Artifact
    label: str = ""  # what the comparison calls it, if not by its role
    lane: str = ""  # which of several students it belongs to
    source: str = ""  # how a named teacher was typed
    unverified: bool = False  # whether it must be shown to beat chance before anything learns from it

    @property
    def spec(self) -> Spec:
        """Return the spec that identifies the network, trained or not."""
        return self.training.spec

    @property
    def name(self) -> str:
        """Return the network's name in log lines and errors."""
        return self.request.label if self.request else self.label or self.role

    @property
    def request(self) -> Request | None:
        """Return the training that is requested; None for an artifact that was named."""
        return self.training if isinstance(self.training, Request) else None


def waves(builder: RequestBuilder, store: Store) -> list[list[Entry]]:
    """Return all networks of a verb that trains: the teacher, the baselines, or teachers and all that learn from them.

    Raise ValueError if two teachers are the same training.
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
    if has_peers(builder.values):
        return [[entry for seed in seeds for entry in _peers(builder, seed)]]
    teachers = [
        _teacher(builder.for_part("teacher", part), part, store) for part in roles.teachers(cfg, builder.choices)
    ]
    _refuse_twins(teachers)
    teacher_specs = chain = [entry.spec for entry in teachers]
    lineup = [teachers]
    for part in roles.assistants(cfg, builder.choices):
        requests = builder.for_part("student", part)
        lineup.append([Entry("assistant", requests.student(int(requests.cfg.teacher.seed), chain, role="assistant"))])
        chain = [lineup[-1][0].spec]
    if cfg.generations:
        return [*lineup, *_generations(builder, seeds, teacher_specs)]
    students: list[Entry] = []
    for part in roles.students(cfg, builder.choices):
        requests = builder.for_part("student", part)
        for seed in seeds:
            if cfg.transfer.labels:  # without labels, a baseline has nothing to learn from
                students.append(Entry("baseline", requests.baseline(seed), lane=part.name))
            if chain is not teacher_specs:
                students.append(Entry("direct", requests.student(seed, teacher_specs), lane=part.name))
            students.append(Entry("student", requests.student(seed, chain), lane=part.name))
    return [*lineup, students]


def _teacher(builder: RequestBuilder, part: roles.Part, store: Store) -> Entry:
    label = "" if part.name in ("", part.model) else f"teacher {part.name}"
    prefix = f"teachers.{part.name}." if part.name else "teacher."
    named = builder.cfg.teacher["from"]
    source = "" if named is None else f"{prefix}from={named}"
    if roles.answered(builder.cfg):
        source = f"{prefix}file={builder.cfg.teacher.file}"
    try:
        teacher = builder.pinned(store) or replace(builder.teacher(), name=label)
        foreign = "adopted" in teacher.spec.recipe or teacher.spec.data["digest"] != builder.dataset.digest
        return Entry("teacher", teacher, label, source=source, unverified=foreign and not builder.cfg.teacher.trust)
    except ValueError as error:
        raise ValueError(str(error).replace("teacher.from=", f"{prefix}from=", 1)) from None


def _refuse_twins(teachers: Sequence[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in teachers:
        if (other := seen.setdefault(entry.spec.fingerprint, entry)) is not entry:
            first, second = (e.name.removeprefix("teacher ") for e in (other, entry))
            raise ValueError(
                f"teachers {first} and {second} are the same training; teachers.{second}.seed="
                f"{entry.spec.seed + 1} trains another one"
            )


def _peers(builder: RequestBuilder, seed: int) -> Iterator[Entry]:
    parts = roles.students(builder.cfg, builder.choices, peers=True)
    if len(parts) < 2:
        raise ValueError(
            f"students=[{parts[0].name}]: one network has no peers; list two or more, or leave students out"
        )
    builders = [builder.for_part("student", part) for part in parts]
    for i, part in enumerate(parts):
        yield Entry("baseline", builders[i].baseline(seed), lane=part.name)
        twin = f"peer {part.name}" + (f" ({part.model})" if part.name != part.model else "")
        request = replace(builders[i].peers(seed, [*builders[:i], *builders[i + 1 :]]), name=twin)
        yield Entry("student", request, "peer", part.name)


def _generations(builder: RequestBuilder, seeds: Sequence[int], teachers: Sequence[Spec]) -> Iterator[list[Entry]]:
    """Yield born-again networks: each generation learns from the one before, the first from the teacher.

    Every generation starts from different initial weights (Furlanello et al. 2018, section 3); the baseline shares
    those of the first generation.
    """
    (part,) = roles.students(builder.cfg, builder.choices)
    requests = builder.for_part("student", part)
    count = int(builder.cfg.generations)
    before = {seed: list(teachers) for seed in seeds}
    for k in range(1, count + 1):
        wave: list[Entry] = []
        for seed in seeds:
            if k == 1 and builder.cfg.transfer.labels:
                wave.append(Entry("baseline", requests.baseline(seed)))
            child = replace(requests.student(seed, before[seed], init=k), name=f"generation {k} {part.model}")
            wave.append(Entry("student" if k == count else "generation", child, f"generation {k}"))
            before[seed] = [child.spec]
        yield wave


def requested(entries: Sequence[Entry]) -> list[Request]:
    """Return the trainings that are requested, without the artifacts that were named."""
    return [entry.request for entry in entries if entry.request is not None]


def teachable(entry: Entry, store: Store) -> bool:
    """Return whether every teacher of a network finished training; log which one diverged."""
    for fingerprint in entry.spec.teachers if entry.request is not None else ():
        teacher = store.find(fingerprint)
        if teacher is None or not teacher.finished:
            log.warning("%s: skipped, since its teacher %s diverged", entry.name, fingerprint)
            return False
    return True
