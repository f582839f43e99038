"""dataset=table: a .csv or .parquet of paths and labels."""

import csv

import pytest

from kdrun import data
from kdrun.data import tabular
from tests.data.given import SPLIT, load_folder, picture, tree

ARGUMENTS = {"path_column": "path", "label_column": "label", "split_column": "split", "size": None, "channels": None}
ROWS = [
    (f"{part}/{name}/{i}.png", name, part) for part in ("train", "test") for name in ("cat", "dog") for i in (0, 1, 2)
]


def load(file, **changed):
    usual = {"on_bad_image": "stop", "max_resident_gb": 8.0, "test_fraction": None, **SPLIT}
    return data.load("table.table", name="table", file=str(file), **{**ARGUMENTS, **usual, **changed})


def written(file, rows, header=("path", "label", "split"), delimiter=",", encoding="utf-8"):
    with open(file, "w", newline="", encoding=encoding) as out:
        csv.writer(out, delimiter=delimiter).writerows([header, *rows])
    return file


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of images, and a cache of their own."""
    monkeypatch.setenv("KDRUN_CACHE", str(tmp_path / "cache"))
    return tree(tmp_path / "images")


def test_a_table_of_a_folders_images_is_the_same_data_however_it_is_written(images, monkeypatch):
    folder = load_folder(images)
    backwards = [(path.replace("/", "\\"), label, part.upper()) for path, label, part in reversed(ROWS)]
    absolute = [(images / path, label, part) for path, label, part in ROWS]
    tables = [
        written(images / "a.csv", ROWS),
        written(images / "b.csv", ROWS, delimiter=";", encoding="utf-8-sig"),
        written(images / "c.tsv", backwards, delimiter="\t"),
        written(images / "d.txt", absolute),
    ]
    assert {load(file).digest for file in tables} == {folder.digest}
    assert load(tables[0]).classes == folder.classes == ("cat", "dog")
    streamed = load(tables[0], max_resident_gb=0)
    assert streamed.digest == folder.digest and len(streamed.train.sources) == 6


def test_a_parquet_file_is_read_and_without_pyarrow_the_extra_is_named(images, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = dict(zip(("path", "label", "split"), map(list, zip(*ROWS, strict=True)), strict=True))
    parquet.write_table(pyarrow.table({**columns, "other": list(range(12))}), images / "a.parquet")
    assert load(images / "a.parquet").digest == load_folder(images).digest
    parquet.write_table(pyarrow.table({**columns, "label": [None, *columns["label"][1:]]}), images / "b.parquet")
    with pytest.raises(ValueError, match=r"row 1: no label for train/cat/0\.png"):
        load(images / "b.parquet")
    (images / "c.parquet").write_bytes((images / "a.parquet").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"is no \.parquet file, or a damaged one"):
        load(images / "c.parquet")
    monkeypatch.setattr(tabular, "installed", lambda package: False)
    with pytest.raises(ValueError, match=r"pip install 'kdrun\[parquet\]'"):
        load(images / "a.parquet", split_seed=1)


def test_columns_of_other_names_and_a_table_without_a_split(images):
    rows = [(label, path) for path, label, _ in ROWS]
    file = written(images / "a.csv", rows, header=("diagnosis", "filename"))
    names = {"path_column": "filename", "label_column": "diagnosis"}
    loaded = load(file, **names, test_fraction=0.34)
    assert (len(loaded.train), len(loaded.test)) == (8, 4)
    with pytest.raises(ValueError, match=r"no test images; add a column split .* dataset\.test_fraction=0\.2"):
        load(file, **names)
    with pytest.raises(ValueError, match=r"no column path; there are: diagnosis, filename\. Type dataset\.path_column"):
        load(file)
    with pytest.raises(ValueError, match=r"no column fold \(dataset\.split_column=fold\); there are"):
        load(file, **names, split_column="fold")
    capital = written(images / "c.csv", ROWS, header=("path", "label", "Split"))
    with pytest.raises(ValueError, match=r"no column split, but a column Split; type dataset\.split_column=Split"):
        load(capital, test_fraction=0.34)
    assert len(load(capital, split_column="Split").train) == len(load(written(images / "d.csv", ROWS)).train)
    with pytest.raises(ValueError, match=r"has test images of its own; leave it out"):
        load(written(images / "b.csv", ROWS), test_fraction=0.2)


WRONG = {
    "line 14: there is no file train/cat/9.png. paths are relative to": [*ROWS, ("train/cat/9.png", "cat", "train")],
    "line 14: no label for x.png": [*ROWS, ("x.png", " ", "train")],
    "line 14: no path": [*ROWS, ("", "cat", "train")],
    r"line 14: split is trian. choose train, val or test. Did you mean train": [*ROWS, ("x.png", "cat", "trian")],
    "line 14: no split. fill in split in every row, or in none": [*ROWS, ("x.png", "cat", "")],
    r"line 14: train/cat/0.png is already in line 2 \(train there, test here\)": [*ROWS, (*ROWS[0][:2], "test")],
    r"line 14: ./train/../train/cat/0.png is already in line 2": [*ROWS, ("./train/../train/cat/0.png", *ROWS[0][1:])],
    "test has no ape": [*ROWS, ("train/ape.png", "ape", "train")],
    "line 14: train/cat is no file|line 14: a folder train/cat": [*ROWS, ("train/cat", "cat", "train")],
    "is an address; download": [*ROWS, ("https://x.org/a.png", "cat", "train")],
    "line 14: 4 values, and the header has 3": [*ROWS, ("a.png", "cat", "train", "more")],
    "has no rows below its header": [],
    "no training images; split holds test alone": ROWS[6:],
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_a_row_is_named_with_its_line(images, message):
    picture(1).save(images / "train" / "ape.png")
    with pytest.raises(ValueError, match=message):
        load(written(images / "wrong.csv", WRONG[message]))


def test_what_is_no_table_is_refused(images):
    (images / "a.csv").write_bytes(b"path,label\n\xff\xfe.png,cat\n")
    (images / "b.csv").write_text('path,label\n"a.png,cat\n')
    (images / "c.csv").write_bytes(b"PK\x03\x04")
    (images / "d.csv").write_text("")
    wrong = {
        "a.csv": "is no UTF-8 text",
        "b.csv": "cannot be read as a .csv",
        "c.csv": "no column path",
        "d.csv": "none",
    }
    for name, message in {**wrong, "e.csv": "there is no such file", "train": "not a regular file"}.items():
        with pytest.raises(ValueError, match=message):
            load(images / name)


def test_missing_and_damaged_images_can_be_left_out_and_repeated_ones_are_warned_of(images, caplog):
    (images / "train" / "cat" / "0.png").unlink()
    (images / "train" / "dog" / "0.png").write_bytes(b"damaged")
    (images / "test" / "dog" / "1.png").write_bytes((images / "train" / "dog" / "1.png").read_bytes())
    loaded = load(written(images / "a.csv", ROWS), on_bad_image="skip")
    assert (len(loaded.train), len(loaded.test)) == (4, 6)
    assert "2 of 12 images cannot be decoded and are left out" in caplog.text
    assert "1 of 6 test images are also training images" in caplog.text
