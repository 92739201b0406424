"""The handshake as scripts: >> is the server, << is us."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    RfbError,
    StateError,
    VmconnectError,
)
from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.engine import MAX_NAME_BYTES, Engine
from vmconnect.vnc.events import Connected
from vmconnect.vnc.messages import set_pixel_format
from vmconnect.vnc.pixel_format import OURS
from vmconnect.vnc.security.vncauth import response
from vmconnect.vnc.states import TRANSITIONS, State

from .wire import SET_ENCODINGS, Script, hello, long, request, server_init, string

CHALLENGE = bytes(range(16))
NONE, VNC_AUTH = 1, 2


def test_38_without_password() -> None:
    script = Script()
    script >> b"RFB 003.008\n" << b"RFB 003.008\n"
    script >> b"\1\1" << b"\1"
    script >> long(0) << b"\1"
    script >> server_init(800, 600, b"desk")
    script << SET_ENCODINGS << request(False, 800, 600) << Connected(800, 600, "desk")
    script.end()
    assert script.engine.state is State.NORMAL


def test_38_with_password() -> None:
    script = Script(password="secret")  # noqa: S106 (no secret)
    script >> b"RFB 003.008\n" << b"RFB 003.008\n"
    script >> b"\2\1\2" << b"\2"
    script >> CHALLENGE << response(CHALLENGE, "secret")
    script >> long(0) << b"\1"
    script.end()


def test_37_has_no_result_without_password() -> None:
    script = Script()
    script >> b"RFB 003.007\n" << b"RFB 003.007\n"
    script >> b"\1\1" << b"\1" << b"\1"
    script.end()
    assert script.engine.state is State.INIT


def test_37_gives_no_reason() -> None:
    script = Script(password="wrong")  # noqa: S106 (no secret)
    script >> b"RFB 003.007\n" << b"RFB 003.007\n"
    script >> b"\1\2" << b"\2"
    script >> CHALLENGE << response(CHALLENGE, "wrong")
    with pytest.raises(AuthenticationError, match=r"refuses the login with VncAuth \("):
        script >> long(1)


def test_33_decides_itself() -> None:
    script = Script()
    script >> b"RFB 003.003\n" << b"RFB 003.003\n"
    script >> long(NONE) << b"\1"
    script >> server_init(1, 1) << SET_ENCODINGS << request(False, 1, 1) << Connected(1, 1, "desk")
    script.end()


def test_33_with_password() -> None:
    script = Script(password="secret")  # noqa: S106 (no secret)
    script >> b"RFB 003.003\n" << b"RFB 003.003\n"
    script >> long(VNC_AUTH)
    script >> CHALLENGE << response(CHALLENGE, "secret")
    script >> long(0) << b"\1"
    script.end()


def test_33_refuses() -> None:
    script = Script()
    script >> b"RFB 003.003\n" << b"RFB 003.003\n"
    with pytest.raises(ConnectError, match="no licence"):
        script >> long(0) + string(b"no licence")


def test_another_pixel_format_is_changed() -> None:
    theirs = dataclasses.replace(OURS, big_endian=True)
    script = Script()
    script >> b"RFB 003.003\n" << b"RFB 003.003\n"
    script >> long(NONE) << b"\1"
    script >> server_init(2, 1, pixel_format=theirs)
    script << set_pixel_format(OURS) << SET_ENCODINGS << request(False, 2, 1)
    script << Connected(2, 1, "desk")
    script.end()


@pytest.mark.parametrize(
    ("theirs", "agreed"),
    [
        (b"003.004", b"003.003"),  # UltraVNC
        (b"003.005", b"003.003"),
        (b"003.006", b"003.003"),
        (b"003.889", b"003.008"),  # Apple
        (b"004.001", b"003.008"),  # RealVNC
        (b"005.000", b"003.008"),
    ],
)
def test_versions_that_are_none(theirs: bytes, agreed: bytes) -> None:
    script = Script()
    script >> b"RFB %s\n" % theirs << b"RFB %s\n" % agreed
    script.end()


@pytest.mark.parametrize(
    ("greeting", "shown"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", "SSH-2.0-OpenSSH_9.2p1 Debian"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 400 Bad Request"),
        (b"RFB 3.8\nwhatever", "RFB 3.8 whatever"),
        (b"\x1b[31mRFB\0\1\2\3\4\5\6\7", "[31mRFB"),
    ],
)
def test_what_is_no_vnc_server_is_shown(greeting: bytes, shown: str) -> None:
    with pytest.raises(RfbError, match="no VNC server") as caught:
        Engine().receive(greeting)
    assert repr(shown) in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_short_greeting_is_shown_at_the_end() -> None:
    engine = Engine()
    engine.receive(b"+OK")
    error = engine.receive_end()
    assert isinstance(error, RfbError)
    assert "'+OK'" in str(error)


def test_a_repeater_is_no_server() -> None:
    with pytest.raises(RfbError, match="repeater"):
        Engine().receive(b"RFB 000.000\n")


def test_refusal_with_reason() -> None:
    with pytest.raises(ConnectError, match="Too many security failures"):
        Engine().receive(b"RFB 003.008\n\0" + string(b"Too many security failures"))


def test_a_reason_is_bounded_and_harmless() -> None:
    with pytest.raises(ConnectError) as caught:
        Engine().receive(b"RFB 003.008\n\0" + long(0xFFFFFFFF) + b"\x1b]0;x\7" * 1000)
    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)


def test_a_reason_that_is_cut_off_is_still_told() -> None:
    engine = Engine()
    engine.receive(b"RFB 003.008\n\0" + long(100) + b"going do")
    error = engine.receive_end()
    assert isinstance(error, ConnectError)
    assert "going do" in str(error)


def test_wrong_password_with_reason() -> None:
    engine = Engine(Credentials("wrong"))
    engine.receive(b"RFB 003.008\n\1\2" + CHALLENGE)
    with pytest.raises(AuthenticationError, match=r": Authentication failed \(is the"):
        engine.receive(long(1) + string(b"Authentication failed\0"))
    assert engine.state is State.CLOSED


def test_too_many_attempts() -> None:
    engine = Engine(Credentials("wrong"))
    with pytest.raises(AuthenticationError, match="too many attempts"):
        engine.receive(b"RFB 003.008\n\1\2" + CHALLENGE + long(2))


def test_no_password_is_said_so() -> None:
    with pytest.raises(AuthenticationError, match="asks for a password"):
        Engine().receive(b"RFB 003.008\n\1\2" + CHALLENGE)


def test_logins_that_we_cannot_make_are_named() -> None:
    with pytest.raises(AuthenticationError, match=r"Ultra \(17\), type 77"):
        Engine().receive(b"RFB 003.008\n\2\x4d\x11")


def test_a_password_is_asked_for_only_if_need_be() -> None:
    asked: list[bool] = []

    def ask() -> str:
        asked.append(True)
        return "secret"

    engine = Engine(Credentials(ask))
    engine.receive(b"RFB 003.008\n\2\2\1")
    assert engine.data_to_send().endswith(b"\1")
    assert not asked
    engine = Engine(Credentials(ask))
    engine.receive(b"RFB 003.008\n\1\2" + CHALLENGE)
    assert asked
    assert engine.data_to_send().endswith(response(CHALLENGE, "secret"))


def test_nobody_knows_the_password() -> None:
    with pytest.raises(AuthenticationError, match="asks for a password"):
        Engine(Credentials(lambda: None)).receive(b"RFB 003.008\n\1\2" + CHALLENGE)


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(Credentials("secret"))


@pytest.mark.parametrize(("width", "height"), [(16385, 1), (1, 16385), (65535, 65535)])
def test_a_screen_too_large(width: int, height: int) -> None:
    with pytest.raises(RfbError, match="a screen of") as caught:
        Engine().receive(hello(width, height))
    assert caught.value.offset is not None


def test_a_name_too_long() -> None:
    init = server_init(1, 1)[:-8] + long(MAX_NAME_BYTES + 1)
    with pytest.raises(RfbError, match="ServerInit: a name of"):
        Engine().receive(b"RFB 003.008\n\1\1" + long(0) + init)


@pytest.mark.parametrize("length", range(len(hello(4, 4))))
def test_the_end_at_any_place_of_the_handshake(length: int) -> None:
    engine = Engine()
    engine.receive(hello(4, 4)[:length])
    error = engine.receive_end()
    assert isinstance(error, ConnectionLostError | RfbError)
    assert engine.state is State.CLOSED
    with pytest.raises(StateError):
        engine.receive(b"x")


@given(st.sampled_from(State), st.sampled_from(State))
def test_no_transition_outside_the_table(before: State, after: State) -> None:
    engine = Engine()
    engine.state = before
    if after in TRANSITIONS[before]:
        engine.enter(after, "x")
        assert engine.state is after
    else:
        with pytest.raises(StateError):
            engine.enter(after, "x")
        assert engine.state is before


@given(st.binary(max_size=300), st.sampled_from([b"", b"RFB 003.003\n", b"RFB 003.008\n"]))
@settings(deadline=None)
def test_garbage_raises_only_our_errors(garbage: bytes, start: bytes) -> None:
    engine = Engine(Credentials("x"))
    try:
        engine.receive(start + garbage)
    except VmconnectError:
        assert engine.state is State.CLOSED
    else:
        assert isinstance(engine.receive_end(), VmconnectError)


def test_only_eight_characters_count() -> None:
    assert response(CHALLENGE, "12345678") == response(CHALLENGE, "123456789")
    assert response(CHALLENGE, "1234567") != response(CHALLENGE, "12345678")
    with pytest.raises(AuthenticationError, match="Latin-1"):
        response(CHALLENGE, "пароль")


def test_an_empty_password_is_the_zero_key() -> None:
    # The best known of all DES test vectors: zeros under the key of zeros.
    assert response(bytes(16), "") == bytes.fromhex("8ca64de9c1b123a7") * 2
