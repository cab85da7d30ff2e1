"""What commands print: nothing that a terminal would act on."""

from __future__ import annotations

import pytest

from gateway.cli.options import print_line, print_warning


def test_control_characters_from_files_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("not promised: \x1b[2Jall good\r\x07\u202e é 例")
    print_warning("not ready: a\n    b\x1b[1A")
    out, err = capsys.readouterr()
    assert out == "not promised: \\x1b[2Jall good\\r\\x07\\u202e é 例\n"
    assert err == "not ready: a\n    b\\x1b[1A\n"
