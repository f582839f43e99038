"""The notes below a comparison's table, and the sources in its files: how its numbers came about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdrun.results import statistics
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.ensemble import Ensemble
from kdrun.results.comparison.lanes import Lane
from kdrun.results.evidence import p_value
from kdrun.results.networks import Row, StoredNetwork
from kdrun.results.statistics import Paired
from kdrun.results.tables import interval, per_cent

MIXING = ("mixup", "cutmix")  # augmentations that mix two images


def notes(comparison: Comparison) -> list[str]:
    """Return all notes, without repetitions."""
    lines = [
        *(note for lane in comparison.lanes for note in _lane_notes(comparison, lane)),
        *_ensemble_notes(comparison),
        *_sampling_notes(comparison),
        *_epoch_notes(comparison),
        *_lost_notes(comparison),
        *_transfer_notes(comparison),
        *_answer_notes(comparison),
        *_augment_notes(comparison),
        *_formula_notes(comparison),
        *(comparison.record.get("notes") or []),
    ]
    if sum(lane.paired is not None and lane.paired.p is not None for lane in comparison.lanes) > 1:
        lines.append("each student is tested separately: p is not corrected for the number of students")
    if len(_environments(comparison)) > 1:
        lines.append("not all were trained in the same environment: comparison.md lists versions and devices")
    return list(dict.fromkeys(lines))


def _lane_notes(comparison: Comparison, lane: Lane) -> Iterator[str]:
    """Yield what was paired, and the test of each difference."""
    if lane.student_is_baseline:  # the same trainings: there is nothing to test
        return
    about = f"{lane.about}: " if lane.about else ""
    if (p := lane.paired) is not None and p.p is not None:
        extra = (comparison.config.get("transfer") or {}).get("extra")
        shared = [] if lane.generations else ["same initial weights"]  # each generation draws its own
        same = "; ".join([*shared, "the student sees more images"]) if extra else ", ".join([*shared, "same batches"])
        smallest = f"the smallest possible with n = {p.n}: {statistics.smallest_p(p.n):.2g}"
        yield f"{about}Δ base, paired by seed ({same}): {_tested(p)} ({smallest})"
    if (s := lane.single) is not None:
        yield (
            f"{about}test-set noise for these two models, not training noise: only the student is right on "
            f"{s.only_second_right} images, only the baseline on {s.only_first_right}, McNemar p "
            f"{p_value(s.mcnemar_p)}; paired bootstrap 95% {interval(s.low, s.high)}"
        )
    others = [(row, lane.difference(row)) for row in lane.beside]
    if tested := [f"{row.label} {_tested(p)}" for row, p in others if p is not None and p.p is not None]:
        yield f"{f'{lane.name}: ' if lane.name else ''}also against the baseline, paired by seed: {'; '.join(tested)}"
    if lane.direct is not None and (p := lane.difference(lane.student, lane.direct)) is not None:
        numbers = f"{per_cent(p.mean, signed=True)}, one seed" if p.p is None else _tested(p)
        yield f"{about}through the assistants − direct, paired by seed: {numbers}"
    if lane.paired is not None and comparison.teachers and lane.gap is None:
        yield _no_gap(comparison, lane, about)


def _tested(p: Paired) -> str:
    """Return a paired difference with its interval and its p-value."""
    assert p.p is not None
    spread = "all differences equal" if p.low is None else f"95% t-interval {interval(p.low, p.high)}"
    return f"{per_cent(p.mean, signed=True)}, {spread}; exact sign-flip p {p_value(p.p)}"


def _no_gap(comparison: Comparison, lane: Lane, about: str) -> str:
    """Return why the share of the gap is not shown."""
    several = len(comparison.teachers) > 1
    if not comparison.same_test:
        if answered(comparison):
            return "gap % and agree % are undefined: the teacher's file has no answers to test images"
        where = f"teacher{'s were' if several else ' was'} measured on different test images"
        if comparison.towards is None:
            where = "teachers were not all measured on the same test images"
        return f"gap % and agree % are undefined: the {where}"
    if lane.towards_itself:
        return "gap % is undefined: the teacher is the baseline's network, so the gap between them is training noise"
    whose = "ensemble" if several else "teacher"
    if (way := lane.way) is None or way.mean <= 0 or way.low > 0:
        return f"{about}gap % is undefined: the {whose} is not better than the baseline"
    return (
        f"{about}gap % is not shown: {whose} − baseline is {per_cent(way.mean, signed=True)} on these test images, 95% "
        f"{interval(way.low, way.high)} by a paired bootstrap over them, so it may be zero"
    )


def _ensemble_notes(comparison: Comparison) -> Iterator[str]:
    """Yield how each ensemble is computed, and whether the gap is measured to it."""
    for row in comparison.rows:
        if row.of == "teacher":
            weights = [w for m in row.networks[:1] if isinstance(m, Ensemble) for w in m.weights]
            parts = ", ".join(f"{w / sum(weights):.3g}" for w in weights)
            shares = "" if len(set(weights)) == 1 else f", weighted {parts}"
            held = "; gap % and agree % refer to it" if comparison.same_test else ""
            yield f"{comparison.names[row]}: mean of the teachers' probabilities at T=1{shares}{held}"
        elif row.of:
            yield f"{comparison.names[row]}: mean of the {row.of}s' probabilities at T=1, of each seed"


def _sampling_notes(comparison: Comparison) -> list[str]:
    """Return over which seeds the standard deviation is taken, and which training noise it leaves out."""
    groups = [lane.rows for lane in comparison.lanes] or [comparison.rows]
    longest = [max(reversed([row for row in rows if not row.of]), key=lambda row: len(row.seeds)) for rows in groups]
    over = {", ".join(map(str, row.seeds)): row for row in longest if row.seeds}
    if not over:
        return []
    seeds = next(iter(over))
    if len(over) > 1:
        seeds = "; ".join(f"{listed} ({comparison.names[row]})" for listed, row in over.items())
    if max(len(row.seeds) for row in over.values()) == 1:
        return [f"seed {seeds}"]
    lines = [f"mean ± sample standard deviation over seeds {seeds}; time: mean of one training"]
    fixed = [row for row in (*comparison.teachers, *comparison.assistants) if len(row.networks) == 1]
    taught = any(lane.student for lane in comparison.lanes)
    if taught and fixed and len(fixed) == len(comparison.teachers) + len(comparison.assistants):
        one = "one teacher" if len(comparison.teachers) == 1 else "one set of teachers"
        one += " and one of each assistant" if comparison.assistants else ""
        whose = "its" if len(fixed) == 1 else "their"
        lines.append(f"{one} for all seeds: the intervals do not include {whose} training noise")
    return lines


def _epoch_notes(comparison: Comparison) -> list[str]:
    """Return how the measured epoch of each row was chosen; the teacher's may have been chosen differently."""
    finished = [row for row in comparison.rows if row.finished and not row.of]
    tested = [network for row in finished for network in row.finished[:1] if network.tested]
    if not tested:
        return []
    names, network = comparison.names, tested[-1]
    chosen: dict[str, list[Row]] = {}
    for row in finished:
        chosen.setdefault(_chosen(row.finished[0]), []).append(row)
    hows = [how if len(chosen) == 1 else f"{_and([names[row] for row in rows])}: {how}" for how, rows in chosen.items()]
    lines = [f"{len(network.labels()):,} test images of {network.result['dataset']}; {'; '.join(hows)}"]
    if others := [row for how in (ON_VALIDATION, BY_CLASS) for row in chosen.get(how, [])]:
        last = "; ".join(f"{names[row]} {per_cent(row.summary('test', epoch='last'))}" for row in others)
        lines[0] += f"; at the last epoch: {last}"
    if averaged := [row for row in finished if row.finished[0].result.get("ema_decay")]:
        decays = _and([f"{names[row]} {row.finished[0].result['ema_decay']:g}" for row in averaged])
        lines.append(f"all accuracies are those of averaged weights (decay: {decays}), except running train accuracy")
    if best := [f"{names[row]} {per_cent(summary)}" for row in finished if (summary := _best_test(row))]:
        lines.append(f"best epoch chosen on test, optimistic: {'; '.join(best)}")
    return lines


def _and(names: Sequence[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last


ON_VALIDATION = "epoch chosen on validation, tested at that epoch"
BY_CLASS = "epoch chosen on validation by the mean accuracy over classes, tested at that epoch"


def _chosen(network: StoredNetwork) -> str:
    """Return how a network's measured epoch was chosen."""
    selected = network.selected
    if network.result["protocol"] == "paper":
        return "last epoch, as the papers report it"
    if not network.tested:
        images = f"train % is over the {network.result['train_images']:,} images that it answered"
        return f"{network.result['formula']}, from a file; {images}"
    if not selected["epoch"]:
        return "weights from a file, not trained here"
    if selected["val"] is None:
        return "last epoch (there is no validation data to choose one)"
    return BY_CLASS if network.result.get("select") == "balanced" else ON_VALIDATION


def _best_test(row: Row) -> statistics.Summary | None:
    best = [m.result["best_test"] for m in row.finished]
    return statistics.summary([b["test"]["accuracy"] for b in best if b])


def _lost_notes(comparison: Comparison) -> list[str]:
    lines = []
    for row in comparison.rows:
        if lost := row.lost():
            reasons: dict[str, list[str]] = {}
            for m in row.networks:
                if not m.finished:
                    reason = str(m.result["reason"] or "unknown reason")
                    name, said_by_name, rest = reason.partition(f" seed {m.seed}: ")  # the line has it already
                    reason = rest if said_by_name and ":" not in name else reason
                    reasons.setdefault(reason, []).append(str(m.seed))
            listed = "; ".join(f"seed{'s'[: len(s) != 1]} {', '.join(s)}: {reason}" for reason, s in reasons.items())
            lines.append(f"{comparison.names[row]}: {len(row.finished)} of {len(row.networks)}, {lost}: {listed}")
    return lines


def answered(comparison: Comparison) -> bool:
    """Return whether the teacher is another model's answers to training images."""
    return any(not network.tested for row in comparison.teachers for network in row.finished)


def _answer_notes(comparison: Comparison) -> list[str]:
    """Return a note on the images that the students of a file of answers saw: those answered, or augmented ones."""
    if not answered(comparison):
        return []
    fixed = bool((comparison.config.get("teacher") or {}).get("fixed"))
    names = set(comparison.config.get("augment") or {}) - {"views", "seed"}
    data = comparison.config.get("dataset") or {}
    if not (data.get("crop_padding") or data.get("flip")):  # crop_flip then changes nothing
        names -= {"crop_flip"}
    seen = "augmented ones (teacher.fixed=true)" if fixed and names else "these"
    return [f"the teacher's answers are for images without augmentation; the students trained on {seen}"]


def _transfer_notes(comparison: Comparison) -> list[str]:
    transfer = comparison.config.get("transfer") or {}
    changes = []
    if transfer.get("fraction", 1) < 1:
        changes.append(f"{100 * transfer['fraction']:g}% of the training images")
    if transfer.get("omit_classes"):
        omitted = list(map(str, transfer["omit_classes"]))
        changes.append(f"without class{'es'[: 2 * (len(omitted) > 1)]} {', '.join(omitted)}")
    if transfer.get("labels") is False:
        changes.append("without labels (so there is no baseline, and no training accuracy)")
    if transfer.get("extra"):
        changes.append("with unlabelled images added for the student")
    return [f"transfer set: {', '.join(changes)}"] if changes and any(lane.student for lane in comparison.lanes) else []


def _augment_notes(comparison: Comparison) -> list[str]:
    """Return notes on augmentations beyond shifts and mirroring, and on how mixing changes running train accuracy."""
    lines = []
    both = {"": comparison.config.get("augment"), "the teacher's ": comparison.config.get("teacher", {}).get("augment")}
    for whose, node in both.items():
        names = [name for name in node or {} if name not in ("views", "seed")]
        views = f", {node['views']} views of each image" if node and node.get("views") else ""
        if views or set(names) - {"crop_flip"}:
            lines.append(f"{whose}augmentation: {', '.join(names) or 'none'}{views}")
        if any(name in MIXING for name in names):
            lines.append("running train accuracy counts a mixed image by the label that has the larger share of it")
    for node in (comparison.config.get("loss") or {}).values():
        if strong := node.get("strong"):
            lines.append(
                "the student sees two views of each image, the second also with "
                f"{', '.join(strong)}; a baseline sees only the first"
            )
    return lines


def _formula_notes(comparison: Comparison) -> Iterator[str]:
    """Yield the loss of each student, or of each network if there is no student; a shared formula is yielded once."""
    students = [lane.student for lane in comparison.lanes if lane.student is not None and lane.student.finished]
    students = students or [row for row in comparison.rows if row.finished and "formula" in row.finished[0].result]
    formulas = {row: str(row.finished[0].result["formula"]) for row in students}
    for row, formula in formulas.items():
        same = {other.label for other in students if formulas[other] == formula} == {row.label}
        shared = same and len(set(formulas.values())) == 1
        yield f"{row.label if shared else comparison.names[row]}: L = {formula}"


def _environments(comparison: Comparison) -> dict[str, list[StoredNetwork]]:
    by_environment: dict[str, list[StoredNetwork]] = {}
    for row in comparison.rows:
        for network in row.networks if not row.of else ():
            by_environment.setdefault(network.environment(), []).append(network)
    return by_environment


def sources(comparison: Comparison) -> list[str]:
    """Return the command, the trainings and the machine that the numbers come from."""
    lines = [f"command: {comparison.record.get('command') or 'unknown'}"]
    for row in comparison.rows:
        trained = ", ".join(f"{m.result['fingerprint']} (seed {m.seed})" for m in row.networks)
        lines.append(f"{comparison.names[row]}: {trained}")
    surroundings = _environments(comparison)
    for environment, networks in surroundings.items():
        which = "" if len(surroundings) == 1 else f" ({', '.join(str(m.result['fingerprint']) for m in networks)})"
        lines.append(f"trained with {environment}{which}")
    return lines
