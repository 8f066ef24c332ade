"""Small logs with known content, written in every form of the contract."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

Rows = list[dict[str, object]]

T0 = 1_700_000_000  # 2023-11-14T22:13:20Z

ITEMS: Rows = [
    {
        "item_id": f"SKU/{n}",
        "title": f'Lamp "No {n}", white' if n % 3 else f"Stuhl für {n} Gäste",
        "categories": ["Home", "Lamps"] if n % 2 else ["Home", "Chairs & more"],
        "brand": f"brand {n % 4}" if n != 5 else None,
        "price": 9.5 + n if n != 2 else None,
        "currency": "EUR",
        "hidden": n == 7,
        "created_at": T0 - n,
        "color": "red" if n % 2 else None,
    }
    for n in range(12)
]

INTERACTIONS: Rows = [
    {
        "user_id": f"u{n % 5}",
        "item_id": f"SKU/{(n * 7) % 12}",
        "timestamp": T0 + 40_000 * n,
        "event": ["purchase", "add_to_cart", "view_item"][n % 3],
        "rating": float(n % 5 + 1) if n % 2 else None,
        "value": 19.99 if n % 3 == 0 else None,
        "currency": "EUR" if n % 3 == 0 else None,
    }
    for n in range(60)
]


def page_rows(pages: int = 20, base: int = 0) -> Rows:
    """Pages of two rows with three slots, one an hour, of four users."""
    return [
        {
            "page_id": f"p{p}",
            "ts": T0 + 3600 * p,
            "user_id": f"u{p % 4}",
            "policy_id": "explore" if p % 3 else "classic",
            "slots": [
                {
                    "row": r + base,
                    "col": c + base,
                    "item_id": f"SKU/{(p + 3 * r + c) % 12}",
                    "propensity": 0.25 if p % 3 else None,
                    "viewed": r == 0,
                }
                for r in range(2)
                for c in range(3)
            ],
        }
        for p in range(pages)
    ]


def page_events(pages: int = 20) -> Rows:
    """A click on slot r0c1 of every page, a cart and a purchase on every second, one purchase without a page."""
    rows: Rows = []
    for p in range(pages):
        item, when = f"SKU/{(p + 1) % 12}", T0 + 3600 * p
        shared = {"user_id": f"u{p % 4}", "page_id": f"p{p}"}
        rows.append({"event_id": f"v{p}", "event": "page_view", "timestamp": when, **shared})
        rows.append(
            {"event_id": f"c{p}", "event": "select_item", "timestamp": when + 5, "item_id": item, "slot_id": "r0c1", **shared}
        )
        if p % 2 == 0:
            rows.append({"event_id": f"a{p}", "event": "add_to_cart", "timestamp": when + 9, "item_id": item, **shared})
            money = {"value": 20.0 + p, "currency": "EUR", "order_id": f"o{p}"}
            rows.append({"event_id": f"b{p}", "event": "purchase", "timestamp": when + 60, "item_id": item, **money, **shared})
    lone = {"event": "purchase", "timestamp": T0 + 700, "user_id": "u9", "item_id": "SKU/11", "value": 5.0, "currency": "EUR"}
    return [*rows, {"event_id": "lone", **lone}]


def long_rows(pages: Rows) -> Rows:
    """Pages as one row a slot."""
    return [
        {**{k: v for k, v in page.items() if k != "slots"}, **slot}
        for page in pages
        for slot in page["slots"]  # type: ignore[attr-defined]
    ]


def write(folder: Path, form: str, **tables: Rows) -> Path:
    """Writes each table as `form` (a suffix of the contract) into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        path = folder / f"{name}.{form}"
        if form == "parquet":
            pl.DataFrame(rows, infer_schema_length=None).write_parquet(path, row_group_size=7)
            continue
        text = as_csv(rows) if "csv" in form else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        data = text.encode()
        path.write_bytes(gzip.compress(data) if form.endswith(".gz") else data)
    return folder


def as_csv(rows: Rows, names: Sequence[str] = ()) -> str:
    """Lists are joined by bars; missing values are empty."""
    stream = io.StringIO()
    columns = list(names) or list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(stream, columns, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: _cell(v) for k, v in row.items()})
    return stream.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list):
        return "|".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return value
