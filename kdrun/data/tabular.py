"""Tables in files, .csv and .parquet: what a table of images and a table of answers have in common."""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdrun.checks import installed

LARGEST_CELL = 2**20  # characters; csv's own limit is 131,072
PARQUET = b"PAR1"
DELIMITERS = (",", ";", "\t")


class Line(NamedTuple):
    """One line of a .csv file; the header is line 1."""

    number: int
    cells: list[str]


def is_parquet(place: Path) -> bool:
    """Return whether a file begins as a .parquet file does."""
    with open(place, "rb") as opened:
        return opened.read(4) == PARQUET


def csv_lines(place: Path, where: str) -> Iterator[Line]:
    """Yield the header and the rows of a UTF-8 .csv file, whose delimiter is a comma, a semicolon or a tab.

    Cells are stripped, and empty lines are left out. Raise ValueError, beginning with `where`, if it cannot be read, or
    if a row has more or fewer cells than the header.
    """
    csv.field_size_limit(LARGEST_CELL)
    try:
        with open(place, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(DELIMITERS, key=first.count)
            header = next(csv.reader([first], delimiter=delimiter, strict=True), [])
            yield Line(1, [name.strip() for name in header])
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            next(reader, None)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise ValueError(
                        f"{where}: line {reader.line_num}: {len(cells)} values, and the header has {len(header)}; put "
                        f"quotes around a value that holds {delimiter!r}"
                    )
                yield Line(reader.line_num, [cell.strip() for cell in cells])
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: is no UTF-8 text ({error.reason}); save it as a .csv of UTF-8, or as .parquet"
        ) from None
    except csv.Error as error:
        raise ValueError(f"{where}: cannot be read as a .csv ({error})") from None
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error.strerror or error})") from None


def parquet_columns(place: Path, where: str, choose: Callable[[list[str]], Sequence[str]]) -> Any:
    """Return the columns of a .parquet file that `choose` selects from its column names, as a pyarrow.Table.

    Raise ValueError, beginning with `where`, if pyarrow is not installed, or if it cannot be read.
    """
    if not installed("pyarrow"):
        raise ValueError(
            f"{where}: needs pyarrow, which is not installed; type pip install 'kdrun[parquet]', or save a .csv"
        )
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(place) as file:
            return file.read(columns=list(choose(file.schema_arrow.names)))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{where}: is no .parquet file, or a damaged one ({str(error).splitlines()[0]})") from None
