"""What a real command writes has the keys that kdrun/records.py names: no other, and each of them somewhere."""

import json
import types
import typing
from collections import defaultdict

import pytest

from kdrun import records
from tests import warm

FILES = {
    "run.json": records.RunJson,
    "sweep.json": records.SweepJson,
    "result.json": records.ResultJson,
    "comparison.json": records.ComparisonJson,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the keys of every type of record, as a sweep over several teachers and students writes them."""
    folder = tmp_path_factory.mktemp("desk")
    words = ["teachers=[digits_student,mlp]", "students=[digits_student,mlp]", "recipe.protocol=heldout,paper"]
    short = ["recipe.epochs=1", "teachers.digits_student.recipe.epochs=1", "teachers.mlp.recipe.epochs=1", "seeds=1"]
    done = warm.type_(folder, "distill", "-m", *words, *short, "device=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    keys = defaultdict(set)
    for name, record in FILES.items():
        for file in folder.rglob(name):
            collect(json.loads(file.read_text()), record, keys)
    return keys


def collect(value, declared, keys):
    """Collect by TypedDict the keys of a value declared as one, or as a list, dict or union of them."""
    if typing.is_typeddict(declared) and value is not None:
        keys[declared] |= set(value)
        for key, inner in typing.get_type_hints(declared).items():
            collect(value.get(key), inner, keys)
    elif typing.get_origin(declared) is list:
        for item in value or ():
            collect(item, *typing.get_args(declared), keys)
    elif typing.get_origin(declared) is dict:
        for item in (value or {}).values():
            collect(item, typing.get_args(declared)[1], keys)
    elif typing.get_origin(declared) is types.UnionType:
        for option in typing.get_args(declared):
            collect(value, option, keys)


def typed_dicts():
    declared = [one for one in vars(records).values() if typing.is_typeddict(one)]
    parts = (records.TrainingJson, records.Choice, records.Verdict, records.ConfigJson)
    parts += (records.TransferJson, records.ReportedJson)
    return [one for one in declared if one not in parts]  # which hold other keys beside these


@pytest.mark.parametrize("record", typed_dicts(), ids=lambda record: record.__name__)
def test_the_keys_written_are_those_of_the_type(written, record):
    assert written[record] == set(typing.get_type_hints(record))
