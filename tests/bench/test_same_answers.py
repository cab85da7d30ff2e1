"""The comparison of two trees: its requests, what it replaces, and what it notices; without servers."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.same_answers.compare import compare_answers, protocol_of, table_of
from bench.same_answers.exchange import (
    TIMED_OUT,
    UNRESOLVED,
    GrpcExchange,
    HttpExchange,
    PlaceholderValues,
    RecordedAnswer,
    UnresolvedPlaceholder,
)
from bench.same_answers.exchanges import exchanges_of
from bench.same_answers.grpc_wire import CANONICAL, SERVICE
from bench.same_answers.http_wire import send_exchange
from bench.same_answers.normal import apply_rules, normalize
from bench.same_answers.sampled_deployment import SAMPLED_DEPLOYMENTS, load_deployment
from bench.same_answers.tree import WrongTree, copy_deployment, require_environment
from fallbacks.oip import open_inference_pb2 as pb

ID, OTHER_ID = b"5ed75c469ff9b29b3fbd45cb", b"1c783b31d965a72f4d84711e"
JSON = b"content-type: application/json"
CASE = HttpExchange("one", (b"",))


def reply(body: bytes, headers: bytes = JSON, status: bytes = b"HTTP/1.1 200 OK") -> RecordedAnswer:
    return (
        ("status 0", status),
        ("headers 0", headers + b"\r\ncontent-length: %d" % len(body)),
        ("body 0", body),
    )


def same(here: RecordedAnswer, there: RecordedAnswer) -> bool:
    return compare_answers("letters", CASE, here, there).same


@pytest.mark.parametrize("name", SAMPLED_DEPLOYMENTS)
def test_there_are_many_requests_of_each_protocol_and_they_are_the_same_each_time(name: str) -> None:
    exchanges = exchanges_of(load_deployment(name))
    counts = Counter(map(protocol_of, exchanges))
    assert counts["HTTP"] >= 500 and counts["gRPC"] >= 200 and counts["HTTP, administration"] >= 100
    assert exchanges == exchanges_of(load_deployment(name))


def test_ids_are_replaced_but_which_of_them_are_the_same_is_not() -> None:
    one = reply(b'{"id":"%b","of":"%b.1"}' % (ID, ID))
    assert same(one, reply(b'{"id":"%b","of":"%b.1"}' % (OTHER_ID, OTHER_ID)))
    assert not same(one, reply(b'{"id":"%b","of":"%b.1"}' % (ID, OTHER_ID)))
    assert not same(one, reply(b'{"id":"%b","of":"%b.2"}' % (ID, ID)))


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (b'{"received":1.5,"us":3}', b'{"received":12345.25,"us":1e-7}'),
        (b'{"age_s": 0.1, "name": "12-ab01"}', b'{"age_s": 10, "name": "345-0000"}'),
        (
            b'{"stage":"rate","verdict":"allow","us":58,"score":1e-6}',
            b'{"stage":"rate","verdict":"allow","us":5,"score":2.5}',
        ),
    ],
)
def test_times_and_names_of_processes_are_replaced(here: bytes, there: bytes) -> None:
    assert same(reply(here), reply(there))


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (b'{"data":[0.5]}', b'{"data":[0.25]}'),
        (b'{"score":0.5}', b'{"score":0.25}'),
        (b'{"stage":"ood","us":1,"score":0.5}', b'{"stage":"ood","us":1,"score":0.25}'),
        (b'{"expires":null}', b'{"expires":1}'),
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}'),
        (b'{"a": 1}', b'{"a":1}'),
    ],
)
def test_everything_else_is_compared(here: bytes, there: bytes) -> None:
    assert not same(reply(here), reply(there))


def test_every_part_of_an_answer_counts() -> None:
    one = reply(b"{}")
    assert same(one, one)
    assert not same(one, reply(b"{}", status=b"HTTP/1.1 201 Created"))
    assert not same(one, reply(b"{}", headers=b"Content-Type: application/json"))
    assert not same(one, (*one, ("rest", b"x")))
    assert not same(one, one[:2])
    (difference,) = compare_answers("letters", CASE, one, reply(b"[]")).differences
    assert (difference.part, difference.here, difference.there) == ("body 0", "{}", "[]")


def test_of_a_large_part_the_place_that_differs_is_shown() -> None:
    here, there = (b'"' + b"a" * 9000 + letter + b"c" * 9000 + b'"' for letter in (b"A", b"B"))
    (difference,) = compare_answers("letters", CASE, reply(here), reply(there)).differences
    assert "aAc" in difference.here and "aBc" in difference.there and len(difference.here) < 5000


def test_a_wrong_length_is_noticed_beside_a_body_with_times() -> None:
    good = reply(b'{"us":1}')
    wrong = (good[0], ("headers 0", JSON + b"\r\ncontent-length: 99"), good[2])
    assert same(good, reply(b'{"us":12345}')) and not same(wrong, reply(b'{"us":12345}'))


def test_what_is_no_answer_is_no_evidence() -> None:
    for nothing in (("end", TIMED_OUT), ("not sent", UNRESOLVED), ("code", b"StatusCode.UNAVAILABLE")):
        assert not same((nothing,), (nothing,))


def test_metrics_are_compared_without_their_values() -> None:
    head = b"content-type: text/plain; version=0.0.4; charset=utf-8"
    told = b'# HELP a what\na_total{b="c"} %b\n'
    assert (
        apply_rules(told % b"1.0", head)
        == apply_rules(told % b"27.5", head)
        != apply_rules(told.replace(b"c", b"d"), head)
    )
    assert b"# HELP a what\n" in apply_rules(told, head)


def test_statistics_are_compared_without_their_times_and_maps_in_one_order() -> None:
    read, change = CANONICAL[f"{SERVICE}ModelStatistics"]
    held = pb.ModelStatisticsResponse()
    model = held.model_stats.add(name="letters", last_inference=7, inference_count=3)
    model.inference_stats.success.count, model.inference_stats.success.ns = 3, 99
    found = read(held.SerializeToString())
    change(found)
    assert found.model_stats[0].inference_count == found.model_stats[0].inference_stats.success.count == 3
    assert found.model_stats[0].last_inference == found.model_stats[0].inference_stats.success.ns == 0


def test_placeholders_are_filled_from_what_the_same_tree_said() -> None:
    known = PlaceholderValues({"ada": "fsg_x"}, {"before": reply(b'{"id":"%b"}' % ID)})
    assert known.fill(b"<<key:ada>> <<key:wrong>> /reviews/<<id:before>>") == b"fsg_x wrong /reviews/" + ID
    with pytest.raises(UnresolvedPlaceholder):
        known.fill(b"<<cookie:before>>")


def test_the_table_counts_by_deployment_and_protocol() -> None:
    told = reply(b"{}", headers=JSON + b"\r\nx-failsafe-outcome: served")
    answers = [
        compare_answers("letters", CASE, told, told),
        compare_answers("letters", CASE, told, reply(b"{}")),
    ]
    answers.append(compare_answers("letters", GrpcExchange("two", "/m"), (), ()))
    http, grpc = table_of(answers)
    assert (http.requests, http.identical, http.outcomes) == (2, 1, {"served": 2})
    assert (grpc.protocol, grpc.requests, grpc.identical) == ("gRPC", 1, 1)


def test_a_tree_without_an_environment_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(WrongTree, match=r"has no \.venv"):
        require_environment(tmp_path)


def test_a_scratch_copy_is_patient_and_without_var(tmp_path: Path) -> None:
    folder = copy_deployment(Path(__file__).parents[2], "letters", tmp_path)
    text = (folder / "gateway.yaml").read_text(encoding="utf-8")
    assert "deadline_s: 10" in text and "per_s: 1000000, burst: 1000000" in text
    assert not (folder / "var").exists()


def serve(*replies: bytes) -> tuple[int, Callable[[], None]]:
    """A listener for one connection that answers each read with the next bytes, and then closes."""
    own = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with own, own.accept()[0] as wire:
            for sent in replies:
                wire.recv(2**16)
                wire.sendall(sent)

    thread = threading.Thread(target=answer)
    thread.start()
    return own.getsockname()[1], thread.join


def test_replies_are_taken_apart_as_they_came() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    two = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nnosurplus"
    port, join = serve(one, two)
    answer = send_exchange(port, HttpExchange("x", (b"a", b"b")), (b"a", b"b"))
    join()
    assert answer == (
        ("status 0", b"HTTP/1.1 200 OK"),
        ("headers 0", b"Content-Length: 2"),
        ("body 0", b"hi"),
        ("3, before status 1", b"HTTP/1.1 100 Continue"),
        ("3, before headers 1", b""),
        ("status 1", b"HTTP/1.1 404 Not Found"),
        ("headers 1", b"content-length: 2"),
        ("body 1", b"no"),
        ("rest", b"surplus"),
        ("end", b"2 replies, then the end"),
    )
    assert normalize(answer) == answer
