"""The model card: what an exported network is, how it was trained and how good it is, from its run's records.

Its sections are those of the Hugging Face hub's template, so it can be uploaded there as README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

from kdrun import augment, console
from kdrun.artifact import Artifact, read_result
from kdrun.checks import as_typed
from kdrun.command.unread import READ_WITH
from kdrun.export.choose import Choice
from kdrun.export.sheet import NAME, Sheet
from kdrun.export.snippets import snippet
from kdrun.files import RunFailed
from kdrun.records import Part, ResultJson
from kdrun.results.runs import Run
from kdrun.results.tables import Table, markdown

if TYPE_CHECKING:
    from kdrun.export.check import Check

MOST_NAMED = 20
UNCHECKED = "The file was not compared with the network it was exported from (check=false).\n"
RUNS_WITH = {"safetensors": "kdrun", "onnx": "onnx", "torch_export": "pytorch"}  # names of libraries on the hub


def card(sheet: Sheet, artifact: Artifact, choice: Choice, check: Check | None) -> str:
    """Return the card; if no run is known, or if the file was not checked, the card says so."""
    teachers = list(_teachers(artifact))
    taught = f", taught by {' and '.join(t['model'] for t in teachers)}" if teachers else ""
    blocks = [
        _front_matter(sheet, artifact),
        f"# {sheet.model} for {sheet.dataset}\n",
        f"{sheet.role.capitalize()} {sheet.model}{taught}: an image classifier with {len(sheet.classes)} classes, "
        f"trained with kdrun.\n",
        "## Model Details\n",
        _details(sheet, artifact),
        "## Uses\n",
        "It predicts the class of an image like those it was trained on. It takes raw pixels: "
        "the normalisation is part of the network.\n",
        "## How to Get Started with the Model\n",
        snippet(sheet),
        "## Training Details\n",
        *_training(artifact, teachers),
        "## Evaluation\n",
        *_evaluation(artifact, choice),
        "### Exported File and Original Network\n",
        check.table(sheet.file).to_markdown() if check else UNCHECKED,
        "## Bias, Risks, and Limitations\n",
        *_limits(sheet, artifact, choice),
        "## Reproduction\n",
        *_reproduction(sheet, artifact, choice.run),
    ]
    return "\n".join(blocks)


def _front_matter(sheet: Sheet, artifact: Artifact) -> str:
    """Return the metadata for the hub; its values are JSON, which is valid YAML whatever characters a name has."""
    fields: dict[str, Any] = {
        "library_name": RUNS_WITH[sheet.format],
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation", "kdrun"],
    }
    if (test := artifact.accuracy("test")) is not None:
        task = {"type": "image-classification"}
        data = {"name": sheet.dataset, "type": sheet.dataset, "split": "test"}
        results = [{"task": task, "dataset": data, "metrics": [{"type": "accuracy", "value": round(test, 6)}]}]
        fields["model-index"] = [{"name": f"{sheet.model}-{sheet.fingerprint}", "results": results}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _details(sheet: Sheet, artifact: Artifact) -> str:
    height, width = sheet.image_size
    shown = ", ".join(sheet.classes[:MOST_NAMED])
    more = f" and {len(sheet.classes) - MOST_NAMED} more, all in {NAME}" if len(sheet.classes) > MOST_NAMED else ""
    arguments = ", ".join(f"{k}={as_typed(v)}" for k, v in sheet.spec["model"]["arguments"].items())
    rows = [
        ["file", f"{sheet.file}, format {sheet.format}, float32"],
        ["architecture", f"{sheet.spec['model']['use']}({arguments})"],
        ["parameters", f"{artifact.result['parameters']:,}"],
        ["input", f"images: uint8 (N, {sheet.channels}, {height}, {width}), 0 to 255, {sheet.colours}; any N"],
        ["output", f"logits: float32 (N, {len(sheet.classes)}); their softmax is the probability of each class"],
        ["from an image file", sheet.preprocessing()],
        ["classes, in order", shown + more],
    ]
    return Table(["", ""], rows).to_markdown()


def _training(artifact: Artifact, teachers: list[ResultJson]) -> Iterator[str]:
    spec, result = artifact.spec, artifact.result
    transfer = spec.data.get("transfer") or {}
    yield "### Training Data\n"
    part = [f"{key}={as_typed(value)}" for key, value in transfer.items() if value != _WHOLE.get(key)]
    held = spec.data.get("val_fraction")
    size = tuple(spec.model["image_size"])
    changed = augment.of_spec(spec.data, size).words()
    strong = next((node["strong"] for node in spec.objective.values() if "strong" in node), None)
    if (second := augment.strong_of_spec(spec.data, strong, size)) is not None:
        changed.append(f"each image also in a second view, {', '.join(second.words())}")
    yield (
        f"{result['train_images']:,} training images of {result['dataset']}"
        + (f" ({markdown(', '.join(part))})" if part else "")
        + (f"; {100 * held:g}% of the set was held out to choose the epoch" if held else "")
        + f". {'; '.join(changed).capitalize() or 'No augmentation'}.\n"
    )
    yield "### Training Procedure\n"
    yield f"Training objective: `{result['formula']}`. Seed {spec.seed}.\n"
    for teacher in teachers:
        test = teacher["selected"]["test"] if teacher["selected"] else None
        right = f", test accuracy {100 * test['accuracy']:.2f}%" if test is not None else ""
        yield f"Teacher: {teacher['model']}, {teacher['parameters']:,} parameters ({teacher['fingerprint']}){right}.\n"
    recipe = {k: v for k, v in spec.recipe.items() if v not in (None, []) and _read(k, spec.recipe)}
    if recipe:
        yield Table(["setting", "value"], [[k, as_typed(v)] for k, v in recipe.items()]).to_markdown()
    speed = f"{console.seconds(result['seconds'])} of training" if result["seconds"] else "not trained by kdrun"
    yield "### Speeds, Sizes, Times\n"
    yield (
        f"{speed}, {result['epochs']} epochs, on {result['device']} in {result['precision']}; "
        f"{result['bytes']:,} bytes of weights.\n"
    )


def _evaluation(artifact: Artifact, choice: Choice) -> Iterator[str]:
    point = artifact.result["selected"]
    assert point is not None  # it has weights
    parts = [(part, artifact.accuracy(part)) for part in get_args(Part)]
    numbers = ", ".join(f"{part} {100 * value:.2f}%" for part, value in parts if value is not None)
    yield f"This network, at epoch {point['epoch']}: accuracy {numbers}. It is {choice.reason}.\n"
    run, table = choice.run, ((choice.run and choice.run.comparison) or {}).get("table")
    if run is None or table is None:
        yield "No comparison with its teacher and baseline is recorded.\n"
        return
    yield f"### Results of its run ({run.name})\n"
    yield "Means over all seeds; this network is one of them:\n"
    rows = [[str(row[column]) for column in table["columns"]] for row in table["rows"]]
    yield Table(table["columns"], rows, table["title"], table["notes"]).to_markdown()


def _limits(sheet: Sheet, artifact: Artifact, choice: Choice) -> Iterator[str]:
    if choice.warning:
        yield f"- {markdown(choice.warning)} This is the student all the same."
    yield f"- Every image gets one of the {len(sheet.classes)} classes, even if it shows none of them."
    yield "- Images that differ from the training images (light, background, polarity, size) are not covered"
    yield "  by the accuracies above."
    yield "- Its probabilities are the softmax of its logits and may not be calibrated."
    if omitted := (artifact.spec.data.get("transfer") or {}).get("omit_classes"):
        names = markdown(", ".join(sheet.classes[i] for i in omitted))
        yield f"- It was trained without images of: {names}."
    if sheet.format == "torch_export":
        yield "- A .pt2 file can run code when it is opened: open only those whose origin you trust."
    yield ""


def _reproduction(sheet: Sheet, artifact: Artifact, run: Run | None) -> Iterator[str]:
    command = run.record.get("command") if run is not None else artifact.result.get("command")
    yield f"    {command}\n"
    versions = ", ".join(f"{name} {version}" for name, version in artifact.result["versions"].items())
    yield (
        f"Fingerprint {sheet.fingerprint} (a hash of everything that determines the training; {NAME} lists it); "
        f"trained with {versions}.\n"
    )


def _teachers(artifact: Artifact) -> Iterator[ResultJson]:
    """Yield the results of the teachers that are still in the store."""
    for fingerprint in artifact.result.get("teachers") or ():
        for folder in artifact.folder.parent.glob(f"*-{fingerprint}"):
            try:
                yield read_result(folder)
            except (RunFailed, FileNotFoundError):
                continue


def _read(key: str, recipe: Mapping[str, Any]) -> bool:
    """Return whether a recipe's key is read, given the other keys."""
    decides, values = READ_WITH.get(key, (key, (recipe[key],)))
    return recipe.get(decides) in values


_WHOLE = {"fraction": 1, "seed": 0, "omit_classes": [], "labels": True, "extra": None}  # all training images
