"""The feature store: what goes in comes out, through kills, copies and several processes."""

from __future__ import annotations

import copy
import json
import os
import pickle
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

pytest.importorskip("safetensors")
from ascl_plugin.data.store import DTYPES, FeatureStore, fill, image_key

SPEC = {"encoder": "test", "size": [3, 4]}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    """An empty store of `SPEC` at `tmp_path`."""
    return FeatureStore(tmp_path, SPEC)


def entry(number: int) -> dict[str, torch.Tensor]:
    """Words of a length that depends on the number, regions of one length; exact in float16."""
    return {
        "words": torch.full((number % 3 + 1, 2), float(number)),
        "regions": torch.arange(12.0).view(3, 2, 2) + number,
        "pooled": torch.tensor([number, -number, 0.5]),
    }


def encode(numbers) -> list[dict[str, torch.Tensor]]:
    return [entry(number) for number in numbers]


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) and found[name].dtype == torch.float32
        for name in expected
    )


def shards(store: FeatureStore) -> list[str]:
    return sorted(path.name for path in store.path.glob("shard-*"))


def test_round_trip_over_several_shards_and_a_new_process(tmp_path, store):
    store.add([("a", entry(1)), ("b", entry(2))])
    store.add([("c", entry(3))])
    store.add([])
    assert len(shards(store)) == 2
    for seen in (store, FeatureStore(tmp_path, SPEC), pickle.loads(pickle.dumps(store))):
        assert len(seen) == 3
        assert [same(seen[k], entry(n)) for k, n in (("a", 1), ("b", 2), ("c", 3))] == [True] * 3
        assert "b" in seen
        assert "d" not in seen
    with pytest.raises(KeyError, match="no features for 'd'"):
        store["d"]


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(1, 8),
)
def test_any_lengths_in_any_shards(lengths, trailing, shard_entries):
    """Zero words included."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(n, *trailing, generator=generator) for n in lengths]
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(folder, SPEC, dtype="float32")
        for start in range(0, len(values), shard_entries):
            part = range(start, min(start + shard_entries, len(values)))
            store.add([(f"text {i}", {"x": values[i]}) for i in part])
        found = [store[f"text {i}"]["x"] for i in range(len(values))]
        assert all(torch.equal(a, b) for a, b in zip(found, values, strict=True))


def test_another_spec_or_dtype_is_another_store(tmp_path, store):
    store.add([("a", entry(1))])
    assert len(FeatureStore(tmp_path, {**SPEC, "size": [3, 5]})) == 0
    assert len(FeatureStore(tmp_path, SPEC, dtype="float32")) == 0
    assert len(FeatureStore(tmp_path, dict(reversed(SPEC.items())))) == 1
    assert json.loads((store.path / "spec.json").read_text()) == {"spec": SPEC, "dtype": "float16"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_is_of_the_disk_alone(tmp_path, dtype):
    store = FeatureStore(tmp_path, SPEC, dtype=dtype)
    value = torch.tensor([1 / 3])
    store.add([("a", {"x": value})])
    found = store["a"]["x"]
    assert found.dtype == torch.float32
    assert torch.equal(found, value.to(getattr(torch, dtype)).float())


def test_what_is_read_may_be_written_to(tmp_path):
    """A caller's in-place change stays out of the store, float32 included."""
    store = FeatureStore(tmp_path, SPEC, dtype="float32")
    store.add([("a", entry(1))])
    store["a"]["pooled"].zero_()
    assert same(store["a"], entry(1))


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_shard_cut_short_is_named(tmp_path, store, keep):
    store.add([("a", entry(1))])
    path = store.path / shards(store)[0]
    os.truncate(path, keep if keep >= 0 else path.stat().st_size - 1)
    with pytest.raises(ValueError, match=rf"{path.name} is cut short or damaged .*; delete it"):
        FeatureStore(tmp_path, SPEC)
    path.unlink()
    assert len(FeatureStore(tmp_path, SPEC)) == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_flipped_bit_is_found_when_its_entry_is_read(tmp_path, dtype):
    store = FeatureStore(tmp_path, SPEC, dtype)
    store.add([("a", {"x": torch.ones(2, 3)}), ("b", {"x": torch.full((1, 3), 2.0)})])
    path = store.path / shards(store)[0]
    two = torch.tensor([2.0]).to(DTYPES[dtype])
    content = path.read_bytes()
    last = content.rindex(bytes(two.view(torch.uint8).tolist()))
    path.write_bytes(content[:last] + bytes([content[last] ^ 1]) + content[last + 1 :])
    damaged = FeatureStore(tmp_path, SPEC, dtype)
    assert torch.equal(damaged["a"]["x"], torch.ones(2, 3))
    with pytest.raises(ValueError, match=rf"{path.name} is cut .*checksum of 'b'.*delete it"):
        damaged["b"]


def test_a_foreign_shard_is_named(store):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3)}, store.path / "shard-0.safetensors")
    with pytest.raises(ValueError, match=r"shard-0.safetensors is cut short or damaged"):
        store.refresh()


def test_a_file_written_aside_is_no_shard(tmp_path, store):
    store.add([("a", entry(1))])
    name = shards(store)[0]
    (store.path / name).rename(store.path / f".{name}.0123abcd.writing")
    assert len(FeatureStore(tmp_path, SPEC)) == 0


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"x": torch.zeros(2, 4)}, r"'b': x has shape \(2, 4\), the first entry \(2, 3\)"),
        ({"y": torch.zeros(2, 3)}, r"'b': got \['y'\], the first entry has \['x'\]"),
        ({"x": torch.full((1, 3), torch.nan)}, "'b': x is not finite in float16"),
        ({"x": torch.full((1, 3), 70000.0)}, "magnitude is 70000 .*float32"),
        ({"x": torch.tensor(1.0)}, r"'b': x must be floats with one axis at least"),
        ({"x": torch.zeros(2, 3, dtype=torch.long)}, r"got torch.int64 \(2, 3\)"),
    ],
)
def test_entries_that_do_not_fit(store, second, words):
    with pytest.raises(ValueError, match=words):
        store.add([("a", {"x": torch.zeros(2, 3)}), ("b", second)])
    assert shards(store) == []


def test_options_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"dtype must be one of .*'int8'"):
        FeatureStore(tmp_path, SPEC, dtype="int8")
    with pytest.raises(TypeError, match=r"must be JSON: .*Tensor"):
        FeatureStore(tmp_path, {"mean": torch.zeros(3)})


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_it(store, start):
    """A store goes to the worker as it is, and is a map-style data set over its keys."""
    store.add([(str(i), {"pooled": entry(i)["pooled"]}) for i in range(6)])
    assert store["5"]["pooled"][0] == 5
    loader = DataLoader(
        store, batch_size=2, sampler=list("504123"), num_workers=1, multiprocessing_context=start
    )
    batches = [batch["pooled"][:, 0].tolist() for batch in loader]
    assert batches == [[5, 0], [4, 1], [2, 3]]


def test_reading_maps_and_keeps_no_file_open(store):
    """40 MB on disk: opening it and reading one entry takes a small part of that in memory."""
    psutil = pytest.importorskip("psutil")
    store.add([(str(i), {"x": torch.ones(1, 1_000_000)}) for i in range(20)])
    process = psutil.Process()
    files, memory = process.num_fds(), process.memory_info().rss
    opened = copy.deepcopy(store)
    assert opened["3"]["x"].sum() == 1_000_000
    assert process.num_fds() == files
    assert process.memory_info().rss - memory < 20e6


# ---------------------------------------------------------------- fill


def test_fill_encodes_each_distinct_key_once(store, capsys):
    """8 items, 5 distinct keys, batches of 2: 3 calls; shards of 2: 2, 2 and 1."""
    items = [1, 2, 1, 3, 4, 5, 5, 1]
    calls = []

    def counted(numbers):
        calls.append(list(numbers))
        return encode(numbers)

    args = (store, items, list(map(str, items)), counted, 2, "test")
    assert fill(*args, progress=False, shard_entries=2) == 5
    assert calls == [[1, 2], [3, 4], [5]]
    assert len(shards(store)) == 3
    assert all(same(store[str(n)], entry(n)) for n in items)
    assert fill(*args) == 0
    assert len(calls) == 3 and "test: 100%" in capsys.readouterr().err


def test_fill_goes_on_where_it_was_killed(store):
    """os._exit in the 4th batch of 2, shards of 4: entries 0-3 are on disk, 4 and 5 are redone."""
    child = os.fork()
    if child == 0:  # dies like a process that is killed: no handler runs

        def dying(numbers):
            if 6 in numbers:
                os._exit(9)
            return encode(numbers)

        fill(store, range(10), list("0123456789"), dying, 2, "", False, 4)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert "0" not in store
    store.refresh()
    assert [k for k in "0123456789" if k not in store] == list("456789")
    assert fill(store, range(10), list("0123456789"), encode, 2, "", False) == 6
    assert all(same(store[str(n)], entry(n)) for n in range(10))


def test_an_error_costs_no_finished_work(tmp_path, store):
    def failing(numbers):
        if 4 in numbers:
            raise ValueError("image 4 does not decode")
        return encode(numbers)

    with pytest.raises(ValueError, match="image 4 does not decode"):
        fill(store, range(6), list("012345"), failing, 2, "test", progress=False)
    assert "3" in FeatureStore(tmp_path, SPEC) and "4" not in FeatureStore(tmp_path, SPEC)


def test_processes_share_the_work_whenever_they_start(tmp_path):
    """The second opens the store when the first is done; still it takes its own half alone."""
    keys = list("aabcde")  # distinct: a b c d e, at 0 2 3 4 5
    done = []

    def noted(numbers):
        done.append(list(numbers))
        return encode(numbers)

    for rank in range(2):
        store = FeatureStore(tmp_path, SPEC)
        fill(store, range(6), keys, noted, 9, "test", False, rank=rank, world_size=2)
    assert done == [[0, 3, 5], [2, 4]]
    first = FeatureStore(tmp_path, SPEC)
    assert all(key in first for key in keys)


def test_fill_faults(store):
    with pytest.raises(ValueError, match="images: 2 items, 3 keys"):
        fill(store, [1, 2], list("abc"), encode, 2, "images", progress=False)
    with pytest.raises(ValueError, match="images: encode gave 1 outputs for 2 items"):
        fill(store, [1, 2], list("ab"), lambda n: encode(n[:1]), 2, "images", progress=False)


# ---------------------------------------------------------------- image_key


def test_image_key_changes_with_the_image(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 1))
    cell = {"path": str(path), "bytes": None}
    key = image_key(cell, "1")
    assert image_key(dict(cell), "1") == key
    monkeypatch.chdir(tmp_path)
    assert image_key({"path": "a.png", "bytes": None}, "1") == key
    os.utime(path, ns=(0, 2))
    assert image_key(cell, "1") != key
    path.write_bytes(b"four")
    os.utime(path, ns=(0, 1))
    assert image_key(cell, "1") != key

    embedded = {"path": "a.png", "bytes": b"x"}
    assert image_key(embedded, "1") == image_key({"path": None, "bytes": b"x"}, "2")
    assert image_key(embedded, "1") != image_key({"path": "a.png", "bytes": b"y"}, "1")


def test_image_key_faults(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"image 42 \(.*none.png\): no such file"):
        image_key({"path": str(tmp_path / "none.png"), "bytes": None}, "42")
    with pytest.raises(ValueError, match="image 42: the row has neither"):
        image_key({"path": None, "bytes": None}, "42")


def test_a_full_cache_is_opened_where_nothing_can_be_written(tmp_path, monkeypatch):
    FeatureStore(tmp_path, {"encoder": "e"})

    def refused(*_: object, **__: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr("ascl_plugin.data.store.write_text", refused)
    FeatureStore(tmp_path, {"encoder": "e"})
    with pytest.raises(OSError, match="read-only"):
        FeatureStore(tmp_path, {"encoder": "another"})
