"""What a person sees of a run, on a terminal and in a log file."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from judicaita.training import console as module
from judicaita.training.console import TrainingConsole, plain, progress, shorten
from judicaita.training.rewards import CompositeReward
from judicaita.types import Completion, Group, Prompt, RewardResult, Sample

STEP = {"reward": 0.4321, "accuracy": 0.25, "tokens_per_second": 1234.5, "loss": 0.01}


def log_file(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width)


def terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the seconds that the bars see."""
    now = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def set_to(seconds: float) -> None:
        now[0] = seconds

    return set_to


def group(prompt: Prompt = "Is it?", *texts: str) -> Group:
    reward = CompositeReward()
    return Group(
        sample=Sample(prompt, "Yes", task="diversity_1"),
        prompt_ids=(1,),
        completions=tuple(Completion((1,), (-0.1,), "stop", 0) for _ in texts),
        texts=texts,
        results=tuple(reward.compute(prompt, text, "Yes", completion_tokens=1) for text in texts),
        advantages=tuple(1.5 - number for number in range(len(texts))),
        has_signal=True,
    )


# ── a log file ───────────────────────────────────────────────────────────────────────────────────


def test_a_log_gets_one_plain_line_each_logging_step(clock: Callable[[float], None]) -> None:
    console = log_file(width=40)  # narrower than a line: lines of a log are never folded
    with TrainingConsole(5, logging_steps=2, console=console) as screen:
        for step in range(1, 6):
            clock(step * 30.0)
            screen.update(step, STEP)
    figures = "reward 0.4321  accuracy 25.0%  1,234 tokens/s"
    assert written(console).splitlines() == [
        f"training  2/5  {figures}  0:01:00 elapsed  0:01:30 left",
        f"training  4/5  {figures}  0:02:00 elapsed  0:00:30 left",
        f"training  5/5  {figures}  0:02:30 elapsed  0:00:00 left",
    ]


def test_a_resumed_run_judges_its_pace_by_its_own_steps(clock: Callable[[float], None]) -> None:
    console = log_file()
    with TrainingConsole(100, first_step=90, logging_steps=1, console=console) as screen:
        clock(10.0)
        screen.update(91, {})
    assert written(console) == "training  91/100  0:00:10 elapsed  0:01:30 left\n"


def test_a_supervised_step_shows_its_loss(clock: Callable[[float], None]) -> None:
    console = log_file()
    with TrainingConsole(1, console=console) as screen:
        screen.update(1, {"loss": 1.5, "grad_norm": 3.0, "tokens_per_second": 10})
    assert written(console).startswith("training  1/1  loss 1.5  10 tokens/s  0:00:00")


def test_an_evaluation_writes_a_line_each_tenth(clock: Callable[[float], None]) -> None:
    console = log_file()
    with progress("evaluation", 20, console=console) as bar:
        for _ in range(19):
            bar.advance(metrics={"accuracy": 0.5})
    lines = written(console).splitlines()
    assert [line.split()[1] for line in lines] == [f"{n}/20" for n in range(2, 20, 2)]
    assert lines[0] == "evaluation  2/20  accuracy 50.0%  0:00:00 elapsed  0:00:00 left"


def test_disabled_it_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    console = terminal()
    with TrainingConsole(2, enabled=False, console=console) as screen:
        screen.update(2, STEP)
        screen.print_group(group("Is it?", "Yes"), "entered")
        screen.print_metrics("figures", STEP)
        screen.message("hello")
        with screen.progress("evaluation", 2) as bar:
            bar.advance(2)
    with progress("evaluation", 2, enabled=False, console=console) as bar:
        bar.advance(2)
    assert written(console) == ""
    assert capsys.readouterr() == ("", "")


def test_stdout_stays_free(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingConsole(1) as screen:
        screen.update(1, STEP)
        screen.message("saved")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == "saved"


# ── a terminal ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_gets_a_bar_with_its_figures_below(width: int) -> None:
    console = terminal(width)
    with TrainingConsole(1000, console=console) as screen:
        screen.update(250, STEP)
    bar, figures = written(console).splitlines()[-3:-1]
    assert re.search(r"training ━+.* +250/1000 0:00:0\d elapsed  0:00:0\d left", bar)
    assert figures.strip() == "reward 0.4321  accuracy 25.0%  1,234 tokens/s"


def test_an_evaluation_has_its_bar_below_and_takes_it_away() -> None:
    console = terminal()
    with TrainingConsole(8, console=console) as screen:
        with screen.progress("[bold]evaluation", 3) as bar:
            bar.update(3)
            screen.message("in between")
        both = written(console)
        screen.update(1, {})
    below = both[both.index("in between") :]
    assert re.search(r"training .* 0/8 .*\n\[bold\]evaluation .* [03]/3 ", below)
    after = written(console)[len(both) :]
    assert " 1/8 " in after
    assert "evaluation" not in after


def test_the_terminal_is_given_back_after_an_error() -> None:
    console = terminal()

    def fail() -> None:
        with TrainingConsole(8, console=console), progress("loading", 2, console=log_file()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert written(console).rstrip("\n").endswith("\x1b[?25h")  # the cursor is back


# ── a scored group ───────────────────────────────────────────────────────────────────────────────


def test_a_group_shows_everything_that_was_scored() -> None:
    console = log_file()
    right, wrong = "Conclusion: Yes", "Conclusion: No"
    TrainingConsole(1, console=console).print_group(group("Is it?", right, wrong), "entered")
    text = written(console)
    assert "diversity_1  entered" in text
    assert re.search(r"prompt +Is it\?", text)
    assert re.search(r"reference +Yes", text)
    # By hand: format .4 (a conclusion, no step), outcome 1 or 0, verbosity 1 token of 128 wanted.
    assert re.search(r"1 .*Conclusion: Yes.*format 0\.400 .* 0\.622 .*\+1\.500 .* stop", text)
    assert re.search(r"2 .*Conclusion: No.*format 0\.400 .* 0\.122 .*\+0\.500 .* stop", text)
    assert text.count("verbosity 0.008") == 2


def test_a_chat_shows_who_speaks() -> None:
    console = log_file()
    chat = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it?"})
    TrainingConsole(1, console=console).print_group(group(chat, "Yes"), "no signal")
    assert "system: Be brief." in written(console)
    assert "user: Is it?" in written(console)


@pytest.mark.parametrize("make", [log_file, terminal])
def test_model_text_is_no_markup_and_cannot_steer_the_terminal(
    make: Callable[[], Console],
) -> None:
    console = make()
    sampled = "[bold red]Yes[/] :smile: \x1b[31mred\x1b[0m \x1b]0;title\x07 a\rb \x9b2Jc \u202ed"
    TrainingConsole(1, console=console).print_group(group(sampled, sampled), sampled)
    text = written(console)
    assert text.count("[bold red]Yes[/] :smile: red ]0;title ab c d") == 3  # title, prompt, table
    assert not set("\x07\r\x9b\u202e") & set(text)
    assert "\x1b[31m" not in text


def test_a_group_without_advantages_or_reward_says_so() -> None:
    console = log_file()
    one = replace(group("Is it?", "Yes"), advantages=(), results=(RewardResult(None),))
    TrainingConsole(1, console=console).print_group(one, "no signal")
    assert re.search(r"│ abstained │ none +│ stop", written(console))


def test_figures_are_a_table() -> None:
    console = log_file()
    TrainingConsole(1, console=console).print_metrics("after [1]", {"accuracy": 0.5, "[x]": 2e-9})
    text = written(console)
    assert "after [1]" in text
    assert re.search(r"accuracy +│ +0\.5 ", text)
    assert re.search(r"\[x\] +│ +2e-09 ", text)


def test_long_texts_lose_their_middle_and_say_how_much() -> None:
    assert shorten("a" * 6 + "b" * 1234 + "c" * 3, 9) == "aaaaaa… (+1,234 characters) …ccc"
    assert shorten("short", 5) == "short"


def test_a_long_completion_shows_its_conclusion() -> None:
    console = log_file()
    text = "Step 1: " + "x" * 5000 + " Conclusion: Yes"
    TrainingConsole(1, console=console).print_group(group("Is it?", text), "entered")
    assert "(+3,824 characters)" in written(console).replace("\n", "")
    assert "Conclusion: Yes" in written(console)


@given(st.text(max_size=30))
def test_plain_keeps_lines_and_words_and_nothing_that_steers(text: str) -> None:
    steering = {c for c in text if unicodedata.category(c) == "Cc"} - {"\n", "\t"}
    kept = plain(text)
    assert not steering & set(kept)
    if not steering and text.isprintable():
        assert kept == text
