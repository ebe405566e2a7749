import io

import pytest

from histokin.progress import format_seconds, on_stderr, silent


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", "50")
    return 50


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (3599.7, "1h00m"), (7800, "2h10m")],
)
def test_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert format_seconds(seconds) == said


def test_without_a_terminal_a_plain_line_comes_every_half_minute_and_at_the_end() -> None:
    clock, out = Clock(), io.StringIO()
    with on_stderr(out, clock)("tiles", 10, "slides") as task:
        for _ in range(10):
            clock.now += 10
            task.advance()
    assert out.getvalue().splitlines() == [
        "tiles      3/10 slides  0.1/s  1m10s left",
        "tiles      6/10 slides  0.1/s  40s left",
        "tiles      9/10 slides  0.1/s  10s left",
        "tiles      10/10 slides  0.1/s  in 1m40s",
    ]


def test_on_a_terminal_one_line_is_redrawn_and_never_wraps(narrow: int) -> None:
    clock, out = Clock(), Terminal()
    with on_stderr(out, clock)("embed", 1000, "tiles") as task:
        for i in range(40):
            clock.now += 0.2
            task.advance(25, note=f"a slide with a long name {i}")
    *live, last = out.getvalue().split("\r\x1b[2K")[1:]
    assert len(live) == 41 - 1
    assert max(map(len, live)) < narrow
    assert all("\n" not in line for line in live)
    assert last.endswith("in 8s\n")
    assert "1000/1000" in last


def test_names_of_files_cannot_move_the_cursor() -> None:
    clock, out = Clock(), io.StringIO()
    with on_stderr(out, clock)("tiles", None, "slides") as task:
        task.advance(note="a\nb\x1b[2Jc")
    assert out.getvalue() == "tiles      1 slides  a?b?[2Jc  in 0s\n"


def test_the_line_is_closed_when_the_stage_fails() -> None:
    clock, out = Clock(), io.StringIO()
    with pytest.raises(RuntimeError, match="broke"), on_stderr(out, clock)("tiles", 2, "slides") as task:  # noqa: PT012
        task.advance()
        raise RuntimeError("it broke")
    assert out.getvalue().endswith("1/2 slides  in 0s\n")


def test_silent_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with silent("tiles", 2, "slides") as task:
        task.advance(2, note="x")
    assert capsys.readouterr() == ("", "")
