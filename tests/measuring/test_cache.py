"""What is kept beside an artifact is found under the settings it was measured with, and under no others."""

import json

from kdrun.measuring.cache import all_cached, cache, cached, key


def cost(macs):
    return {"sitting": "then", "macs": macs, "latency": {}, "memory": {}}


def test_what_was_kept_is_found_under_the_same_settings_alone(tmp_path):
    cache(tmp_path, "cost", {"threads": 1, "device": "cpu"}, cost(7))
    assert cached(tmp_path, "cost", {"device": "cpu", "threads": 1.0})["macs"] == 7  # order and 1.0 change nothing
    assert cached(tmp_path, "cost", {"device": "cpu", "threads": 2}) is None
    assert cached(tmp_path, "robustness", {"device": "cpu", "threads": 1}) is None
    (file,) = (tmp_path / "measured").iterdir()
    assert file.name == f"cost-{key({'device': 'cpu', 'threads': 1})}.json" and len(file.stem) == len("cost-") + 12
    assert json.loads(file.read_text())["settings"] == {"threads": 1, "device": "cpu"}


def test_a_second_measurement_replaces_the_first_and_the_newest_comes_first(tmp_path):
    cache(tmp_path, "cost", {"threads": 1}, cost(1))
    cache(tmp_path, "cost", {"threads": 2}, cost(2))
    cache(tmp_path, "cost", {"threads": 1}, cost(3))
    cache(tmp_path, "robustness", {"threads": 1}, {"macs": 4})
    assert [result["macs"] for result in all_cached(tmp_path, "cost")] == [3, 2]


def test_a_damaged_file_is_as_good_as_none(tmp_path):
    cache(tmp_path, "cost", {"threads": 1}, cost(1))
    (file,) = (tmp_path / "measured").iterdir()
    whole = json.loads(file.read_text())
    cut = [json.dumps({k: v for k, v in whole.items() if k != gone}) for gone in ("settings", "created", "latency")]
    for content in ("{", "[]", "{}", "", json.dumps(whole | {"settings": []}), *cut):
        file.write_text(content)
        assert cached(tmp_path, "cost", {"threads": 1}) is None and all_cached(tmp_path, "cost") == []
    assert all_cached(tmp_path / "nowhere", "cost") == []
