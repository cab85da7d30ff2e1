"""Asks models for rows whose answers are known, again and again, also while no caller asks.

A model that returns the same for every row, or the answer of another row, fails in no way that a single
answer shows. Its breaker compares these (`Breaker.prove`), and calls the model no more until they are right.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from fallbacks.breaker import Breaker
from fallbacks.known_rows import WrongAnswer

WATCH_EVERY_S: Final = 2.0
log = logging.getLogger(__name__)


async def watch_models(breakers: Callable[[], Mapping[str, Breaker]]) -> None:
    """Until cancelled: asks every model whose answers are known. breakers: those in force, by rung.

    Cost: one pass of three rows for each of them every WATCH_EVERY_S seconds.
    """
    wrong: set[str] = set()
    while True:
        await asyncio.sleep(WATCH_EVERY_S)
        for rung, breaker in list(breakers().items()):
            if breaker.knows_answers:
                await _ask(rung, breaker, wrong)


async def _ask(rung: str, breaker: Breaker, wrong: set[str]) -> None:
    """Asks one model, and logs a change. wrong: those that answered wrongly the last time."""
    try:
        await breaker.prove()
    except WrongAnswer as error:
        if rung not in wrong:
            log.error("%s: %s; it is not called until it answers them again", rung, error)
        wrong.add(rung)
    except Exception:  # noqa: BLE001 - its failures are the breaker's to count
        return
    else:
        if rung in wrong:
            log.info("%s: it answers known rows as before again", rung)
        wrong.discard(rung)
