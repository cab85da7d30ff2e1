"""The persons of the administration: one token each, hashed at rest; from an invalid file none is let in."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from gateway.access.persons import Person, Persons, Role
from gateway.access.persons_file import add_person, load_persons, revoke_person
from gateway.core.errors import ArtifactError

ADMIN_TOKEN = "a token of the environment"


def test_a_person_is_known_by_the_token_that_was_made_and_by_no_other(tmp_path: Path) -> None:
    persons = Persons(tmp_path, ADMIN_TOKEN)
    token = add_person(tmp_path, "ada", "reviewer")
    found = persons.with_token(token)
    assert found is not None and (found.name, found.role) == ("ada", Role.REVIEWER)
    assert persons.named("ada") == found
    for wrong in ("", "ada", token[:-1], token + "x", found.credential, ADMIN_TOKEN):
        assert persons.with_token(wrong) is None, wrong


def test_only_a_keyed_hash_of_a_token_is_stored_for_the_owner_alone(tmp_path: Path) -> None:
    state = tmp_path / "var"
    tokens = [add_person(state, name, "viewer") for name in ("ada", "grace")]
    assert len(set(tokens)) == 2 and all(len(token) >= 40 for token in tokens)
    written = [path for path in state.iterdir() if path.is_file()]
    assert len(written) == 2
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not any(token.encode() in path.read_bytes() for token in tokens)
    other = tmp_path / "other"
    add_person(other, "eve", "viewer")
    (other / "persons.jsonl").write_bytes((state / "persons.jsonl").read_bytes())
    assert Persons(other, ADMIN_TOKEN).with_token(tokens[0]) is None, "the file alone opens nothing"


def test_a_running_gateway_knows_who_was_added_replaced_and_revoked(tmp_path: Path) -> None:
    persons = Persons(tmp_path, ADMIN_TOKEN)
    old = add_person(tmp_path, "ada", "operator")
    add_person(tmp_path, "grace", "viewer")
    new = add_person(tmp_path, "ada", "viewer")
    assert persons.with_token(old) is None
    found = persons.with_token(new)
    assert found is not None and found.role is Role.VIEWER
    assert revoke_person(tmp_path, "ada") and not revoke_person(tmp_path, "ada")
    assert persons.with_token(new) is None and persons.named("ada") is None
    assert [person.name for person in load_persons(tmp_path)] == ["grace"]


def test_the_token_of_the_environment_is_an_operator_who_is_in_no_file(tmp_path: Path) -> None:
    persons = Persons(tmp_path, ADMIN_TOKEN)
    found = persons.with_admin_token(ADMIN_TOKEN)
    assert found is not None and (found.name, found.role) == ("admin", Role.OPERATOR)
    assert persons.with_admin_token(ADMIN_TOKEN + " ") is None and persons.with_admin_token("") is None
    assert persons.named("admin") == found and load_persons(tmp_path) == []
    with pytest.raises(ValueError, match="choose another"):
        add_person(tmp_path, "admin", "viewer")


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"name": "eve"}',
        b'{"name": "eve", "role": "root", "hash": "' + b"0" * 64 + b'", "added_s": 1.0}',
        b'{"name": "Eve!", "role": "operator", "hash": "' + b"0" * 64 + b'", "added_s": 1.0}',
        b'{"name": "eve", "role": "operator", "hash": "0", "added_s": 1.0}',
        b'{"name": "eve", "role": "operator", "hash": "' + b"0" * 64 + b'", "added_s": 1.0, "also": 1}',
    ],
)
def test_from_an_invalid_file_no_person_is_let_in_and_its_line_is_named(tmp_path: Path, line: bytes) -> None:
    token = add_person(tmp_path, "ada", "operator")
    persons = Persons(tmp_path, ADMIN_TOKEN)
    assert persons.with_token(token) is not None
    with (tmp_path / "persons.jsonl").open("ab") as file:
        file.write(line)
    assert persons.with_token(token) is None and persons.with_admin_token(ADMIN_TOKEN) is not None
    with pytest.raises(ArtifactError, match=r"persons\.jsonl:2: is no person"):
        add_person(tmp_path, "grace", "viewer")
    assert (tmp_path / "persons.jsonl").read_bytes().endswith(line)


def test_persons_who_are_added_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    async def main() -> list[str]:
        adding = [asyncio.to_thread(add_person, tmp_path, f"p{i}", "viewer") for i in range(12)]
        return await asyncio.gather(*adding)

    tokens, persons = asyncio.run(main()), Persons(tmp_path, ADMIN_TOKEN)
    assert [getattr(persons.with_token(token), "name", None) for token in tokens] == [
        f"p{i}" for i in range(12)
    ]


@pytest.mark.parametrize(
    ("name", "role"), [("Ada", "viewer"), ("", "viewer"), ("ada", "root"), ("a b", "viewer")]
)
def test_an_invalid_name_or_role_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, role: str
) -> None:
    with pytest.raises(ValueError):
        add_person(tmp_path, name, role)
    assert load_persons(tmp_path) == []


def test_a_person_is_found_by_the_identity_at_a_proxy_which_is_one_persons_alone(tmp_path: Path) -> None:
    persons = Persons(tmp_path, ADMIN_TOKEN)
    add_person(tmp_path, "ada", "reviewer", "ada@example.org")
    found = persons.with_identity("ada@example.org")
    assert isinstance(found, Person) and found.name == "ada"
    assert persons.with_identity("eve@example.org") is None and persons.with_identity("ada") is None
    with pytest.raises(ValueError, match="another person's"):
        add_person(tmp_path, "eve", "operator", "ada@example.org")


def test_each_role_includes_those_below_it() -> None:
    assert sorted(Role) == [Role.SCRAPER, Role.VIEWER, Role.REVIEWER, Role.OPERATOR]
