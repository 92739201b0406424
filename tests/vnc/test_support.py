"""docs/rfb-support.md says what the tests show."""

from __future__ import annotations

import os
from pathlib import Path

from vmconnect.vnc.encodings import ENCODINGS as READ
from vmconnect.vnc.security import LOGINS as MADE
from vmconnect.vnc.security.plain import UNIX_LOGIN
from vmconnect.vnc.security.vencrypt import SUBTYPES

from .support import ENCODINGS, LOGINS, document
from .writer import FORMATS

DOCUMENT = Path(__file__).parents[2] / "docs" / "rfb-support.md"
_MADE = {(login.name, login.number) for login in (*MADE, *SUBTYPES)} - {("VeNCrypt", 19)}
KINDS = [*sorted(_MADE, key=lambda kind: kind[1]), (UNIX_LOGIN.name, UNIX_LOGIN.number)]


def test_the_document_is_what_the_tests_show() -> None:
    written = document(KINDS, len(FORMATS))
    if os.environ.get("VMCONNECT_WRITE_DOCS"):
        DOCUMENT.write_text(written)
    assert DOCUMENT.read_text() == written, "VMCONNECT_WRITE_DOCS=1 writes it"


def test_every_login_is_made_somewhere() -> None:
    assert {name for name, _ in KINDS} == {name for names in LOGINS.values() for name in names}


def test_every_encoding_that_is_read_is_in_the_document() -> None:
    cases = next(iter(ENCODINGS.values()))
    pixels = {number for number in READ if number >= 0 or number == -260}
    pixels -= {number for number in pixels if number > 50}
    assert pixels <= {case.offers[0] for case in cases.values()}
