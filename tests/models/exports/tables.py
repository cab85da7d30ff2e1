"""Tables of numbers and categories with a fixed seed, where no package ships a real one that fits."""

from __future__ import annotations

import numpy as np
import pandas as pd

FLIPPED = 0.02
"""The share of labels that are turned at random: no model can know them."""


def churn(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Customers with missing ages and incomes, and "stay" or "churn"."""
    random = np.random.default_rng(seed)
    tenure = random.integers(0, 72, rows)
    monthly = np.round(random.normal(60, 15, rows).clip(10), 2)
    table = pd.DataFrame(
        {
            "age": random.normal(45, 12, rows).clip(18, 90).astype(np.float32),
            "income": random.lognormal(10.5, 0.4, rows).astype(np.float32),
            "monthly": monthly.astype(np.float32),
            "total": (monthly * tenure + random.normal(0, 5, rows)).astype(np.float32),
            "tenure": tenure.astype(np.int64),
            "calls": random.poisson(2, rows).astype(np.int64),
            "plan": random.choice(["basic", "pro", "family"], rows, p=[0.5, 0.3, 0.2]),
            "region": random.choice(
                ["north", "south", "east", "west", "isles"], rows, p=[0.3, 0.3, 0.2, 0.18, 0.02]
            ),
        }
    )
    risk = (
        (table["calls"] > 3).to_numpy() * 4.0
        + (tenure < 12) * 3.0
        + (table["plan"] == "basic").to_numpy() * 2.0
    )
    leaves = (risk - (table["age"] > 55).to_numpy() * 2.0 > 3.5) ^ (random.random(rows) < FLIPPED)
    for name, share in (("age", 0.08), ("income", 0.05)):
        table.loc[random.random(rows) < share, name] = np.nan
    return table, np.where(leaves, "churn", "stay")


def rents(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Flats and what they cost a month, with noise of a tenth."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "area": random.gamma(9, 8, rows).clip(15, 200).astype(np.float32),
            "rooms": random.integers(1, 6, rows).astype(np.int64),
            "year": random.integers(1900, 2024, rows).astype(np.int64),
            "district": random.choice(["centre", "harbour", "hill", "lake"], rows),
            "heating": random.choice(["gas", "oil", "pump"], rows, p=[0.6, 0.15, 0.25]),
        }
    )
    by_metre = table["district"].map({"centre": 16.0, "harbour": 12.0, "hill": 10.0, "lake": 14.0}).to_numpy()
    rent = table["area"].to_numpy() * by_metre * (1 + (table["year"].to_numpy() - 1900) / 400)
    return table, (rent * random.normal(1, 0.1, rows)).astype(np.float32)
