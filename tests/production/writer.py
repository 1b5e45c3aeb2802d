"""One of several processes that write to the same tables: ``writer.py URI WHO ROUNDS [one]``."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from functools import partial

import polars as pl

from cryptoml_assets.resources.lake import Lake

#: The day that all writers add rows to.
SHARED = date(2024, 1, 1)
ROWS = {"writer": pl.String, "round": pl.Int64, "before": pl.Int64}
DAILY = {"date": pl.Date, "writer": pl.String, "round": pl.Int64}


def own_day(who: str, number: int) -> date:
    """A day that one writer alone replaces, in one round."""
    return SHARED + timedelta(days=1 + number * 2 + (who == "b"))


def main(uri: str, who: str, rounds: int, *, one: bool = False) -> None:
    """Write to a table of each kind that the platform has, or to ``one``, ``rounds`` times."""
    lake = Lake(uri)
    # Both begin when both are there.
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for number in range(rounds):
        row = {"writer": [who], "round": [number]}
        lake.append("appended", pl.DataFrame(row))
        if one:
            continue
        lake.extend("extended", partial(_after, who, number), ROWS)
        lake.rewrite_days("shared_day", [SHARED], partial(_with, who, number), DAILY)
        day = own_day(who, number)
        lake.replace_days("own_days", pl.DataFrame({"date": [day], **row}, schema=DAILY), [day])


def _after(who: str, number: int, rows: pl.DataFrame) -> pl.DataFrame:
    row = {"writer": [who], "round": [number], "before": [rows.height]}
    return pl.DataFrame(row, schema=ROWS)


def _with(who: str, number: int, rows: pl.DataFrame) -> pl.DataFrame:
    row = {"date": [SHARED], "writer": [who], "round": [number]}
    return pl.concat([rows, pl.DataFrame(row, schema=DAILY)])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), one=sys.argv[4:] == ["one"])
