"""Wrong tokens are throttled, per address and in all; tokens that cannot be guessed still open."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from gateway.access.persons_file import add_person
from gateway.admin.throttle import MAX_ADDRESSES, SECONDS_A_TRY, TRIES, TRIES_IN_ALL, LoginThrottle
from tests.support.admin_world import HTML, TOKEN, admin_world, deployment, on_loop


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_an_address_has_ten_tries_and_then_one_every_six_seconds() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    for _ in range(TRIES):
        assert throttle.wait_s("a") == 0
        throttle.count("a")
    assert throttle.wait_s("a") == SECONDS_A_TRY and throttle.wait_s("b") == 0
    clock.now_s += SECONDS_A_TRY
    assert throttle.wait_s("a") == 0
    throttle.count("a")
    assert throttle.wait_s("a") == SECONDS_A_TRY
    clock.now_s += 10 * 3600
    assert throttle.wait_s("a") == 0


def test_many_addresses_together_have_a_limit_too_and_take_bounded_memory() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    for i in range(TRIES_IN_ALL):
        assert throttle.wait_s(f"{i}") == 0
        throttle.count(f"{i}")
    assert throttle.wait_s("another") == 1.0
    for i in range(2 * MAX_ADDRESSES):
        throttle.count(f"{i}")
    assert len(throttle._forgotten_s) == MAX_ADDRESSES


@on_loop
async def test_guesses_at_the_login_and_by_bearer_are_refused_after_ten_without_being_compared(
    tmp_path: Path,
) -> None:
    async with admin_world(deployment(tmp_path)) as one:
        one.authentication._throttle._clock = itertools.repeat(time.monotonic()).__next__  # however slow
        ada = add_person(one.repository.state, "ada", "operator")
        statuses = []
        for i in range(15):
            statuses.append((await one.anonymous.post("/login", data={"token": f"guess{i}"})).status_code)
            bearer = {"authorization": f"Bearer guess{i}"}
            statuses.append((await one.anonymous.get("/status", headers=bearer)).status_code)
        assert statuses == [401] * 10 + [429] * 20
        right = await one.script.get("/status")
        assert right.status_code == 429, "else the answer would tell a right guess from a wrong one"
        assert right.headers["retry-after"] == "6"
        page = await one.anonymous.post("/login", data={"token": TOKEN}, headers=HTML)
        assert page.status_code == 429 and "Too many wrong tokens" in page.text
        assert (await one.browser.get("/status")).status_code == 200, "a session goes on"
        async with one.signed_in(ada) as browser:
            assert (await browser.client.get("/status")).status_code == 200, (
                "256 random bits need no throttle"
            )
        failed = [act for act in one.acts() if act["act"] == "login" and not act["done"]]
        assert len(failed) == 10, "what is refused unseen fills no log"
