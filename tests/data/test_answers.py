"""Answers of a model that is not here: files made by pandas, NumPy and safetensors, held against a data set."""

import json

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from PIL import Image
from scipy.special import log_softmax

from kdrun.data import answer_files, answers
from kdrun.data.sets import ImageSet, assemble
from kdrun.data.transfer import TransferSet
from tests.data.given import load_folder, tree, zipped

CLASSES = ["cat", "dog", "eel"]
TWELVE = [[0.5, 0.25, 0.25]] * 12


def pixels_of(images):
    """What a model of these tests answers: the first pixels of an image, which tell all images apart."""
    stored = next(images.stored([torch.arange(len(images))], torch.device("cpu"))).images
    return stored[:, :, 0, 0].float()


def from_files(root):
    """The same answers from the files, by name, in an order of their own."""
    files = sorted((root / "train").rglob("*.png"), key=lambda file: file.name)
    pixels = np.array([np.asarray(Image.open(file))[0, 0] for file in files], dtype=np.float32)
    return [file.relative_to(root).as_posix() for file in files], pixels


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("images"), count=20, classes=tuple(CLASSES))


def grey(**changed):
    """Twelve grey images without files."""
    train = ImageSet(torch.arange(12, dtype=torch.uint8).reshape(12, 1, 1, 1).repeat(1, 1, 2, 2), torch.arange(12) % 3)
    settings = {"mean": [0.5], "std": [0.5], "val_fraction": 0.0, "split_seed": 0}
    return assemble("grey", CLASSES, {"train": train, "test": train}, **{**settings, **changed})


def written(folder, suffix, kind, values, *, name=None, index=None, classes=CLASSES):
    """A file as somebody would make it who has no kdrun."""
    file, values = folder / f"answers{suffix}", np.asarray(values)
    there = {key: value for key, value in (("name", name), ("index", index)) if value is not None}
    if suffix in (".csv", ".parquet"):
        frame = pd.DataFrame(values, columns=classes).add_prefix(f"{kind}.")
        for key, value in there.items():
            frame.insert(0, key, value)
        frame.to_csv(file, index=False) if suffix == ".csv" else frame.to_parquet(file, index=False)
    elif suffix == ".npz":
        np.savez(file, **{kind: values}, classes=classes, **there)
    else:
        index = {} if index is None else {"index": np.asarray(index)}
        words = {"classes": json.dumps(classes)} | ({} if name is None else {"name": json.dumps(list(name))})
        safetensors.numpy.save_file({kind: values, **index}, file, words)
    return str(file)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".safetensors"])
def test_every_image_of_a_part_gets_its_own_answer_by_name_in_every_format(images, tmp_path, suffix):
    names, pixels = from_files(images)
    file = written(tmp_path, suffix, "logits", pixels, name=names)
    for where in (
        {"root": images},
        {"root": images, "max_resident_gb": 0},
        {"root": zipped(images, tmp_path / "a.zip")},
    ):
        data = load_folder(**where, val_fraction=0.2)
        given = answers.read(file, data)
        some = TransferSet(fraction=0.3, omit_classes=["dog"]).apply(data)
        assert len(some) == 10 and data.stored == 60
        for part in (data.train, data.val, some):
            assert torch.equal(given.logits[given.rows(data, part)], pixels_of(part))
    by_index = load_folder(images)  # whole, so that the numbers are those of all stored images
    again = written(tmp_path, suffix, "logits", pixels_of(by_index.train).numpy()[::-1].copy(), index=range(60)[::-1])
    assert answers.read(again, by_index).digest == given.digest


def test_images_of_several_places_are_called_by_their_paths_below_the_folder_around_them(tmp_path):
    one, two = tree(tmp_path / "one", count=1), tree(tmp_path / "deep" / "two", count=1, parts=("train",))
    assert load_folder(zipped(one, tmp_path / "all.zip")).names == ("train/cat/0.png", "train/dog/0.png")
    assert sorted(load_folder([str(one), str(two)]).names) == [
        *("deep/two/train/cat/0.png", "deep/two/train/dog/0.png"),
        *("one/train/cat/0.png", "one/train/dog/0.png"),
    ]


def test_probabilities_become_their_logarithms_and_zero_that_of_a_trillionth(tmp_path):
    logits = np.random.default_rng(0).normal(size=(12, 3)) * 4
    p = np.exp(log_softmax(logits, axis=1))
    p[3] = [1, 0, 0]
    given = answers.read(written(tmp_path, ".npz", "probabilities", p, index=np.arange(12)), grey())
    others = [0, 1, 2, *range(4, 12)]
    np.testing.assert_allclose(given.logits.numpy()[others], log_softmax(logits, axis=1)[others], rtol=1e-6)
    np.testing.assert_allclose(given.logits[3], [0, np.log(1e-12), np.log(1e-12)], rtol=1e-6)
    assert given.logits.dtype == torch.float32 and given.kind == "probabilities"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".safetensors"])
def test_what_is_written_is_read_bit_for_bit(tmp_path, suffix):
    values = np.random.default_rng(1).normal(size=(500, 2)).astype(np.float32) * 1e4
    classes, names = ("a,b", 'c "d" e.f'), tuple(f"train/{i};.png" for i in range(500))
    about = {"version": 1, "network": "Ä"}
    file = answer_files.AnswerFile("logits", values, classes, names, np.arange(500)[::-1].copy(), about)
    (tmp_path / f"a{suffix}").write_bytes(answer_files.content(file, suffix))
    back = answer_files.read(str(tmp_path / f"a{suffix}"))
    assert back.values.astype(np.float32).tobytes() == values.tobytes()
    assert (back.kind, back.classes, back.names, back.indices.tolist()) == (
        "logits",
        classes,
        names,
        [*range(500)][::-1],
    )
    assert back.about == ({} if suffix == ".csv" else about)


def npz(folder, **entries):
    whole = {"probabilities": TWELVE, "index": np.arange(12), "classes": CLASSES, **entries}
    np.savez(folder / "a.npz", **{key: value for key, value in whole.items() if value is not None})
    return str(folder / "a.npz")


REFUSED = {
    "classes in another order": ({"classes": ["dog", "cat", "eel"]}, "class 0 is 'dog' there and 'cat' here"),
    "another class": ({"classes": ["cat", "dog", "emu"]}, "only in the file: emu; only in the data set: eel"),
    "too many classes": ({"classes": [*CLASSES, "cat"], "probabilities": [[0.25] * 4] * 12}, "cat is listed twice"),
    "no classes": ({"classes": None}, "has no classes: the names of the classes"),
    "columns": (
        {"classes": ["cat", "dog"]},
        r"of shape \(12, 3\); needs floating-point numbers of shape \(images, 2\)",
    ),
    "whole numbers": ({"probabilities": [[1, 0, 0]] * 12}, "probabilities are int64"),
    "an unknown image": ({"index": [*range(11), 40]}, "answers 1 unknown images: index 40; .* images 0 to 11"),
    "an image twice": ({"index": [*range(11), 3]}, "1 images have two answers or more: index 3;"),
    "rows": ({"index": np.arange(11)}, "has 12 rows of probabilities and 11 of index"),
    "no identity": ({"index": None}, "needs name or index"),
    "names without files": ({"index": None, "name": list("abcdefghijkl")}, "grey have none; use index instead, from 0"),
    "a fraction": ({"index": np.arange(12.0)}, "index is float64"),
    "NaN": ({"probabilities": [*TWELVE[:7], [0.5, np.nan, 0.5], *TWELVE[8:]]}, "nan for index 7, class dog"),
    "infinity": ({"probabilities": None, "logits": [*TWELVE[1:], [0, 0, -np.inf]]}, "-inf for index 11, class eel"),
    "percentages": ({"probabilities": [[50.0, 25, 25]] * 12}, "sum to 100 .*divide percentages by 100"),
    "logits": ({"probabilities": [[0.7, 0.7, -0.4]] * 12}, r"index 0 lie in \[-0.4, 0.7\].* name them logits, not"),
    "a remainder": ({"probabilities": [[0.5, 0.2, 0.2]] * 12}, "sum to 0.9 "),
    "beyond float32": ({"probabilities": None, "logits": [[1e39, 0, 0]] * 12}, "beyond the range of float32"),
    "both": ({"logits": TWELVE}, "needs entries called logits or probabilities, and has both"),
    "neither": ({"probabilities": None, "p": TWELVE}, "and has neither; its entries are .*p"),
    "objects": ({"classes": np.array(CLASSES, dtype=object)}, "save names as text"),
    "a newer version": ({"kdrun_answers": json.dumps({"version": 2})}, "was written by a newer kdrun"),
    "a damaged entry": ({"kdrun_answers": "{"}, "kdrun_answers is damaged"),
    "other images": ({"kdrun_answers": json.dumps({"version": 1, "data": "0"})}, "was written for other images"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_does_not_fit_is_refused_by_what_is_wrong_with_it(tmp_path, what):
    entries, message = REFUSED[what]
    with pytest.raises(ValueError, match=rf"teacher\.file={tmp_path}/a\.npz: .*{message}"):
        answers.read(npz(tmp_path, **entries), grey())


def test_only_the_images_that_the_student_learns_from_need_answers(tmp_path):
    data = grey(val_fraction=0.25)
    held = data.val.origins.tolist()
    file = npz(tmp_path, probabilities=TWELVE[:9], index=sorted({*range(12)} - {*held}))
    given = answers.read(file, data)
    assert given.rows(data, data.train).tolist() == [*range(9)]
    with pytest.raises(ValueError, match=rf"no answer for 3 of 3 images .*: index {held[0]}, index {held[1]}, index"):
        given.rows(data, data.val)
    with pytest.raises(ValueError, match=r"transfer\.extra: .* no answers for these 12 images"):
        given.rows(data, data.train.joined(data.test))


def test_tables_are_refused_by_line_and_column(images, tmp_path):
    data = load_folder(images)
    for lines, message in {
        "name,probabilities.cat,probabilities.dog,probabilities.eel\nx,0.5,,0.5": "line 2: probabilities.dog is ''",
        "name,logits.cat,logits.dog,logits.eel\nx,1,2,3": "1 unknown images: x; .*train/cat/0.png, train/cat/1.png",
        "index,logits.cat,logits.dog,logits.eel\n1.0,1,2,3": "line 2: index is '1.0', not a whole number",
        "name,index,logits.cat,logits.dog,logits.eel\ntrain/cat/1.png,7,1,2,3": "has the index 7 there and 1 in data",
        "name,logits.cat,logits.cat\nx,1,2": "two columns are called logits.cat",
        "name,cat,dog,eel\nx,1,2,3": r"columns called logits\.CLASS or probabilities\.CLASS, and has neither",
        "name,logits.cat,logits.dog,logits.eel": "has no rows",
        "": "and has neither; its columns are none",
    }.items():
        (tmp_path / "a.csv").write_text(lines)
        with pytest.raises(ValueError, match=rf"a\.csv: .*{message}"):
            answers.read(str(tmp_path / "a.csv"), data)
    for name, message in {
        "a.txt": "there is no such file",
        "a": "there is no such file",
        "": "Type teacher.file=",
    }.items():
        with pytest.raises(ValueError, match=message):
            answers.read(str(tmp_path / name), data)
    (tmp_path / "b.txt").write_text("x")
    with pytest.raises(ValueError, match=r"the ending chooses the format: type FILE\.safetensors, FILE\.npz"):
        answers.read(str(tmp_path / "b.txt"), data)
    for suffix in answer_files.ENDINGS:
        (tmp_path / f"c{suffix}").write_bytes(b"\x93\0\xff nothing of the kind")
        with pytest.raises(ValueError, match=r"is no|and has neither"):
            answers.read(str(tmp_path / f"c{suffix}"), data)


def test_names_identify_the_images_at_another_size_and_that_is_logged(images, tmp_path, caplog):
    large, small = load_folder(images), load_folder(images, size=8)
    names, pixels = from_files(images)
    about = {"version": 1, "data": large.digest}
    for named in (tuple(names), None):
        file = answer_files.AnswerFile("logits", pixels, tuple(CLASSES), named, None if named else np.arange(60), about)
        (tmp_path / "a.parquet").write_bytes(answer_files.content(file, ".parquet"))
        if named is None:
            with pytest.raises(ValueError, match="was written for other images than those of dataset=mine"):
                answers.read(str(tmp_path / "a.parquet"), small)
        else:
            assert torch.equal(answers.read(str(tmp_path / "a.parquet"), small).logits, pixels_of(large.train))
    assert "they are matched by name" in caplog.text
