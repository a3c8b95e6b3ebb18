"""Arrays in shared memory in the hands of packages that look at what an array has.

What holds: a package does with a shared array what it does with a plain one that is equal,
since no attribute of ours is one that packages ask of an object. A package that is not
installed is skipped.
"""

import numpy as np
import pytest

import shared_numpy as snp


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


M = np.arange(6.0).reshape(3, 2)

# What is made of an array of two columns, by pandas and the array.
FRAMES = {
    "array": lambda pd, m: pd.DataFrame(m),
    "columns": lambda pd, m: pd.DataFrame(m, columns=["a", "b"]),
    "one column": lambda pd, m: pd.DataFrame(m[:, 0]),
    "dict": lambda pd, m: pd.DataFrame({"q": m[:, 0], "r": m[:, 1]}),
    "list of rows": lambda pd, m: pd.DataFrame([m[0], m[1]]),
    "records": lambda pd, m: pd.DataFrame.from_records(m),
    "index": lambda pd, m: pd.DataFrame(M).set_index(m[:, 0]),
    "assigned": lambda pd, m: pd.DataFrame({"q": [1, 2, 3]}).assign(x=m[:, 0]),
    "concatenated": lambda pd, m: pd.concat([pd.Series(m[:, 0]), pd.Series(m[:, 1])], axis=1),
    "two levels": lambda pd, m: pd.DataFrame(M, pd.MultiIndex.from_arrays([m[:, 0], m[:, 1]])),
    "product": lambda pd, m: pd.DataFrame(M, pd.MultiIndex.from_product([m[:, 0], [1]])),
    "grouped": lambda pd, m: pd.DataFrame(M).groupby(m[:, 0]).mean(),
    "crosstab": lambda pd, m: pd.crosstab(m[:, 0], m[:, 1]),
    "merged": lambda pd, m: pd.DataFrame(M).merge(pd.DataFrame(m), on=0),
    "multiplied": lambda pd, m: pd.DataFrame(M) * m,
    "series": lambda pd, m: pd.Series(m[:, 0]).to_frame(),
    "arithmetic": lambda pd, m: (m[:, 0] * pd.Series(M[:, 0])).to_frame(),
    "ufunc": lambda pd, m: np.add(pd.Series(M[:, 0]), m[:, 0]).to_frame(),
    "an index": lambda pd, m: pd.Index(m[:, 0]).to_frame(),
    "reindexed": lambda pd, m: pd.DataFrame(M, [0.0, 2.0, 4.0]).reindex(m[1:, 0]),
    "dates": lambda pd, m: pd.to_datetime(m[:, 0]).to_frame(),
    "date index": lambda pd, m: pd.DatetimeIndex(m[:, 0].astype("M8[ns]")).to_frame(),
    "categories": lambda pd, m: pd.Series(pd.Categorical(m[:, 0])).to_frame(),
    "cut": lambda pd, m: pd.Series(pd.cut(m[:, 0], 2)).to_frame(),
}


@pytest.mark.parametrize("make", sorted(FRAMES))
def test_pandas(pandas, make):
    """Up to pandas 2 an array's `name` becomes that of a Series, and its column."""
    made, expected = (FRAMES[make](pandas, each(M)) for each in (snp.array, np.array))
    pandas.testing.assert_frame_equal(made, expected)
    assert list(made.columns) == list(expected.columns) and made.index.names == expected.index.names


def test_pandas_of_an_array_with_a_name(pandas, name):
    a = snp.create(name, (2, 2))
    pandas.testing.assert_frame_equal(pandas.DataFrame(a), pandas.DataFrame(np.zeros((2, 2))))
    snp.delete(name)


def test_xarray():
    xarray = pytest.importorskip("xarray")
    made = xarray.DataArray(snp.array(M), dims=("x", "y"))
    assert made.name is None
    assert made.mean("x").identical(xarray.DataArray(M, dims=("x", "y")).mean("x"))


ATTRIBUTES = [
    "name", "names", "index", "columns", "values", "dims", "coords", "attrs", "iloc", "loc",
    "mask", "categories", "label", "labels", "title", "file", "fileno", "read", "write", "mode",
    "compute", "todense", "toarray", "to_numpy", "to_dense", "units", "__dask_graph__",
    "__dataframe__", "__arrow_array__", "__geo_interface__",
]  # fmt: skip


def test_no_attribute_is_one_that_packages_ask_for(name):
    a = snp.zeros((2, 2))
    frames = snp.RingBuffer(3).write()
    named = snp.create(name, 3)
    with frames as frame:
        for each in (a, a[0], named, frame):
            found = [what for what in ATTRIBUTES if hasattr(each, what)]
            assert found == [what for what in ATTRIBUTES if hasattr(np.zeros(2), what)] == []
    # What they ask for and arrays have is numpy's.
    for what in ("copy", "__len__", "__iter__", "__array_priority__", "__array_interface__"):
        assert what not in vars(snp.ndarray)
    snp.delete(name)
