"""A caller that floods the review queue: its own rows are refused, those of all others still deferred."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.serving.review_answers import answer_with_label
from tests.support.data_planes import Client, plane_of
from tests.support.deployments import FULL_RATE, Raises, clean_rows, key_for, letters

CAPACITY = 40


async def flood(client: Client, n: int) -> list[tuple[int, str, str]]:
    """The ends of n requests of one row each, all of them different."""
    return [(await client.infer(row[None])).outcome for row in clean_rows(n)]


DEFERRED, OVER = (422, "deferred", "unavailable"), (429, "refused", "rate_limited")


@pytest.mark.parametrize(
    ("change", "stored"),
    [
        (("capacity: *", f"capacity: {CAPACITY}"), CAPACITY // 4),
        # A row of 16 numbers takes about 4,500 bytes with its case: 58 fit into a quarter of a mebibyte.
        (("capacity: *", "capacity: 10000, max_bytes: 1048576"), 58),
    ],
    ids=["cases", "bytes"],
)
def test_one_caller_without_a_key_leaves_room_for_callers_with_one(
    tmp_path: Path, change: tuple[str, str], stored: int
) -> None:
    folder = letters(tmp_path, FULL_RATE, change)
    with plane_of(folder, ada=key_for(folder, "ada"), bob=key_for(folder, "bob")) as plane:

        async def main() -> None:
            await plane.answer_all()
            with plane.spoiled(Raises(), Raises()):
                ends = await flood(plane.anonymous, stored + 15)
                taken = ends.index(OVER)
                assert abs(taken - stored) <= 4
                assert ends == [DEFERRED] * taken + [OVER] * (len(ends) - taken)
                refused = await plane.anonymous.infer(clean_rows(100)[-1:])
                assert refused.headers["retry-after"] == "60"
                others = [await flood(one, 3) for one in (plane.ada, plane.client(plane.keys["bob"]))]
                assert others == [[DEFERRED] * 3] * 2

        plane.run(main)


def test_addresses_without_a_key_take_half_of_the_queue_together_at_most(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, ("capacity: *", f"capacity: {CAPACITY}"))
    with plane_of(folder, ada=key_for(folder, "ada")) as plane:

        async def main() -> None:
            await plane.answer_all()
            with plane.spoiled(Raises(), Raises()):
                addresses = [replace(plane.anonymous, source=f"127.0.0.{i}") for i in range(2, 8)]
                ends = [end for one in addresses for end in await flood(one, CAPACITY // 4 + 1)]
                assert ends.count(DEFERRED) == CAPACITY // 2
                assert await flood(plane.ada, 11) == [DEFERRED] * (CAPACITY // 4) + [OVER]

        plane.run(main)


def test_a_flood_of_one_row_is_one_case_whose_answer_every_request_gets(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE, ("capacity: *", f"capacity: {CAPACITY}"))
    with plane_of(folder, ada=key_for(folder, "ada"), bob=key_for(folder, "bob")) as plane:

        async def main() -> None:
            await plane.answer_all()
            bob = plane.client(plane.keys["bob"])
            with plane.spoiled(Raises(), Raises()):
                asked = [await plane.ada.infer(clean_rows(1)) for _ in range(2 * CAPACITY)]
                of_bob = await bob.infer(clean_rows(1))
            assert {one.outcome for one in (*asked, of_bob)} == {DEFERRED}
            urls = {one.json["review_url"] for one in asked}
            assert len(urls) == 2 * CAPACITY
            assert len(await plane.cases()) == 2, "one of each caller"
            await plane.answer(asked[7].parameters["fs_decision_id"], answer_with_label(3))
            for url in sorted(urls)[:20]:
                found = (await plane.ada.get(url)).json
                assert (found["id"], found["state"]) == (url.rsplit("/", 1)[-1], "decided")
                assert found["answer"]["parameters"]["fs_decision_id"] == found["id"]
                assert (await bob.get(url)).status == 404
            assert (await bob.get(of_bob.json["review_url"])).json["state"] == "waiting"

        plane.run(main)
