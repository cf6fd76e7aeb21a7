"""What learner's code prints is kept up to a limit, and the rest is counted."""

import os

from autograder.judge.printed import Printed


def pipe_with(data: bytes) -> int:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, data)
    os.close(writing)
    return reading


def test_it_keeps_up_to_the_limit_and_counts_what_comes_after() -> None:
    printed = Printed(limit=10)
    printed.drain(pipe_with(b"0123456789abc"))
    printed.drain(pipe_with(b"de"))
    assert (printed.text(), len(printed), printed.lost) == ("0123456789", 10, 5)


def test_an_empty_pipe_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    printed = Printed(limit=10)
    assert not printed.take(reading)
    os.write(writing, b"x")
    assert printed.take(reading)
    assert printed.text() == "x"


def test_it_goes_back_to_an_earlier_moment() -> None:
    printed = Printed(limit=4)
    printed.drain(pipe_with(b"ab"))
    length, lost = len(printed), printed.lost
    printed.drain(pipe_with(b"cdef"))
    assert (printed.text(length), printed.lost) == ("cd", 2)
    printed.forget(length, lost)
    assert (printed.text(), printed.lost) == ("ab", 0)


def test_half_a_character_at_the_limit_can_still_be_written() -> None:
    printed = Printed(limit=3)
    printed.drain(pipe_with("aüü\0".encode()))
    printed.text().encode()
    assert printed.text().startswith("aü")
