"""Evaluation: figures by hand, and a scripted engine in place of a model."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judicaita.errors import CheckpointError, ConfigError, DataError, JudicaitaError
from judicaita.legal.tasks import get_family, split_of
from judicaita.training import evaluation
from judicaita.training.data_curation import write_samples
from judicaita.training.durable import writing_folder
from judicaita.training.evaluation import (
    EvaluationHarness,
    evaluate_checkpoint,
    wilson_interval,
)
from judicaita.training.rewards import CompositeReward, OutcomeReward
from judicaita.training.rollouts.base import SamplingParams
from judicaita.types import Completion, Sample

GOOD = "Step 1: Ann is from Ohio.\nStep 2: Bob is from Iowa.\nConclusion: Yes"
SAMPLES = (
    Sample("First?", "Yes", task="diversity"),
    Sample("Second?", "No", task="diversity"),
    Sample("Third?", "Yes", task="hearsay"),
    Sample("Fourth?", "", task="open"),
)
TEXTS = (GOOD, GOOD, "Yes", "Who knows")
TOKENS = (20, 20, 2, 512)
FINISHED = ("stop", "stop", "stop", "length")

plain = EvaluationHarness(text_overlap=False)


def test_figures_by_hand():
    metrics = plain.score(SAMPLES, TEXTS, TOKENS, FINISHED).metrics
    assert metrics["samples"] == 4
    assert metrics["graded"] == 3
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["format_compliance"] == 0.5
    assert metrics["mean_tokens"] == 138.5
    assert metrics["truncated"] == 0.25
    assert metrics["reward/format"] == 0.5
    assert metrics["reward/outcome"] == pytest.approx(2 / 3)
    # Low and high are 128 and 384 tokens: 20/128, 20/128, 2/128 and 2 − 512/384.
    lengths = [20 / 128, 20 / 128, 2 / 128, 2 / 3]
    assert metrics["reward/verbosity"] == pytest.approx(sum(lengths) / 4)
    rewards = [0.8 + 0.2 * lengths[0], 0.3 + 0.2 * lengths[1], 0.5 + 0.2 * lengths[2]]
    rewards.append(0.2 * lengths[3] / 0.5)  # the outcome abstains
    assert metrics["reward"] == pytest.approx(sum(rewards) / 4)


def test_by_task_and_records():
    report = plain.score(SAMPLES, TEXTS, TOKENS, FINISHED)
    assert report.by_task.keys() == {"diversity", "hearsay", "open"}
    assert report.by_task["diversity"]["accuracy"] == 0.5
    assert report.by_task["hearsay"]["format_compliance"] == 0
    assert "accuracy" not in report.by_task["open"]
    first, second, _, fourth = report.records
    assert (first.answer, first.correct, first.well_formed) == ("Yes", True, True)
    assert second.correct is False
    assert (fourth.answer, fourth.correct, fourth.finish_reason) == (None, None, "length")
    assert first.sample_id == SAMPLES[0].id
    assert plain.score([Sample("p", "")], ["x"], [1], ["stop"]).by_task.keys() == {"unnamed"}


QUESTION = (
    "Ava spoke at lunch. Ava is the other side. Ava's words go to prove the debt. "
    "Ava told it weeks later. Does the hearsay rule bar Ava's words?"
)
HEARSAY = Sample(QUESTION, "No", task="hearsay_2", facts=get_family("hearsay").parse(QUESTION))
SOUND = (
    "Step 1: at lunch, so out of court.\nStep 2: the other side, so an opponent.\n"
    "Step 3: to prove the debt, so for its truth.\nStep 4: weeks later, so no exception.\n"
    "Conclusion: No"
)


class TestSteps:
    samples = (*(replace(HEARSAY, task=f"hearsay_{n}") for n in (2, 2, 2, 3)), SAMPLES[0])
    texts = (
        SOUND,
        # Right with one false step of two: a quarter is covered.
        "Step 1: at lunch, so out of court.\nStep 2: the rival's agent, so an opponent.\n"
        "Conclusion: No",
        "Conclusion: No",
        SOUND.replace("Conclusion: No", "Conclusion: Yes"),  # true, and not sound
        SOUND,
    )

    def report(self):
        return plain.score(self.samples, self.texts, (30,) * 5, ("stop",) * 5)

    def test_figures_by_hand(self):
        metrics = self.report().metrics
        assert (metrics["samples"], metrics["checked"]) == (5, 4)
        assert metrics["accuracy"] == 3 / 5  # the last answers No where Yes is right
        assert metrics["true"] == 2 / 4
        assert metrics["sound"] == 1 / 4
        assert metrics["coverage"] == pytest.approx((1 + 1 / 4 + 0 + 1) / 4)
        assert metrics["right_with_false_step"] == 1 / 4

    def test_per_task_and_family(self):
        report = self.report()
        assert report.by_family.keys() == {"hearsay"}
        assert report.by_family["hearsay"]["sound"] == 1 / 4
        assert report.by_family["hearsay"]["accuracy"] == 3 / 4
        assert report.by_task["hearsay_2"]["true"] == pytest.approx(1 / 3)
        assert report.by_task["hearsay_3"]["true"] == 1
        assert "true" not in report.by_task["diversity"]

    def test_records(self):
        first, second, third, _, other = self.report().records
        assert (first.family, first.is_true, first.is_sound) == ("hearsay", True, True)
        assert (first.coverage, first.has_false_step) == (1, False)
        assert (second.is_true, second.is_sound, second.has_false_step) == (False, False, True)
        assert (third.is_true, third.coverage, third.has_false_step) == (False, 0, False)
        nothing = (other.family, other.is_true, other.is_sound, other.coverage)
        assert (*nothing, other.has_false_step) == (None,) * 5

    def test_absent_where_nothing_is_checked(self):
        report = plain.score(SAMPLES, TEXTS, TOKENS, FINISHED)
        assert not {"checked", "true", "sound", "coverage"} & report.metrics.keys()
        assert report.by_family == {}

    def test_a_gate_leaves_accuracy_alone(self):
        gated = CompositeReward(0, 1, 0, step_weight=1, step_mode="gated")
        harness = EvaluationHarness(gated, text_overlap=False)
        metrics = harness.score(self.samples, self.texts, (30,) * 5, ("stop",) * 5).metrics
        assert metrics["accuracy"] == metrics["reward/outcome"] == 3 / 5
        # Halves of steps and outcome: 1; a quarter of the steps; nothing; all steps; a plain 0.
        assert metrics["reward"] == pytest.approx((1 + 1 / 8 + 0 + 1 / 2 + 0) / 5)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_interval(hits, trials, low, high):
    # 8 of 10: (0.8 + 0.19207 ± 1.96 · √(0.016 + 0.009604)) / 1.38415.
    assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=5e-5)


class TestTextOverlap:
    harness = EvaluationHarness()

    def test_rouge_and_bleu_by_hand(self):
        # 5 of 6 words and 3 of 5 pairs agree; the longest common subsequence has 5 words; BLEU is
        # the geometric mean of 5/6, 3/5, 2/4 and 1/3, the lengths being equal.
        sample = Sample("p", "the cat sat on a mat")
        text = "Conclusion: the cat sat on the mat"
        report = self.harness.score([sample], [text], [8], ["stop"])
        assert report.metrics["rouge1"] == pytest.approx(5 / 6)
        assert report.metrics["rouge2"] == pytest.approx(3 / 5)
        assert report.metrics["rougeL"] == pytest.approx(5 / 6)
        assert report.metrics["bleu"] == pytest.approx(100 * (1 / 12) ** 0.25)
        assert report.records[0].rouge["rouge2"] == pytest.approx(3 / 5)

    def test_a_worked_solution_is_compared_as_a_whole(self):
        sample = Sample("p", "Yes", trace=GOOD)
        metrics = self.harness.score([sample], [GOOD], [20], ["stop"]).metrics
        assert (metrics["rougeL"], metrics["bleu"]) == pytest.approx((1, 100))

    def test_absent_without_anything_to_compare(self):
        metrics = self.harness.score([Sample("p", "")], ["x"], [1], ["stop"]).metrics
        assert not metrics.keys() & {"rouge1", "bleu", "accuracy"}

    def test_the_extra_is_missing(self, monkeypatch):
        monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
        with pytest.raises(JudicaitaError, match=r"pip install 'judicaita\[eval\]'"):
            EvaluationHarness()
        EvaluationHarness(text_overlap=False)


@given(st.permutations(range(4)))
def test_order_changes_no_figure(order):
    def pick(row):
        return [row[index] for index in order]

    report = plain.score(pick(SAMPLES), pick(TEXTS), pick(TOKENS), pick(FINISHED))
    expected = plain.score(SAMPLES, TEXTS, TOKENS, FINISHED)
    assert report.metrics == expected.metrics
    assert report.by_task == expected.by_task


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_shares_stay_in_0_1(texts):
    samples = [replace(SAMPLES[index], facts={"court": "x"}) for index in range(len(texts))]
    report = EvaluationHarness().score(samples, texts, [3] * len(texts), ["stop"] * len(texts))
    for name, value in report.metrics.items():
        if name not in ("samples", "graded", "mean_tokens", "bleu"):
            assert -1e-12 <= value <= 1 + 1e-12, name


def test_the_reward_s_own_grader_decides():
    sample = Sample("p", "the clause is void in Texas")
    text = "Conclusion: the clause is void"
    strict = CompositeReward(outcome_reward=OutcomeReward(match="exact"))
    accuracy = [
        EvaluationHarness(reward, text_overlap=False)
        .score([sample], [text], [5], ["stop"])
        .metrics["accuracy"]
        for reward in (None, strict, lambda prompt, response, reference: 0.0)
    ]
    assert accuracy == [1, 0, 1]


def test_a_reward_that_abstains_gives_no_mean():
    from judicaita.types import RewardResult

    harness = EvaluationHarness(lambda p, r, g: RewardResult(None), text_overlap=False)
    assert "reward" not in harness.score([SAMPLES[0]], [GOOD], [9], ["stop"]).metrics


def test_no_samples_and_uneven_rows():
    with pytest.raises(DataError, match="no samples"):
        plain.score([], [], [], [])
    with pytest.raises(ValueError, match="zip"):
        plain.score(SAMPLES, TEXTS[:2], TOKENS, FINISHED)


def test_report_as_json(tmp_path):
    chat = Sample(({"role": "user", "content": "Ünd?"},), "Yes")
    report = plain.score([chat], ["Yes"], [2], ["stop"])
    path = tmp_path / "new" / "report.json"
    report.to_json(path)
    report.to_json(path)  # an old report is replaced
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["metrics"] == report.metrics
    assert read["records"][0]["prompt"] == [{"role": "user", "content": "Ünd?"}]
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


class WordPolicy:
    """One token a word, with the prompt's own words as the vocabulary."""

    def __init__(self):
        self.words = ["<eos>"]

    def encode(self, prompt):
        return tuple(self._id(word) for word in prompt.split(" "))

    def decode(self, token_ids):
        return " ".join(self.words[i] for i in token_ids if i)

    def _id(self, word):
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)


class ScriptedEngine:
    """Answers each known prompt with a fixed text; notes what it was asked."""

    def __init__(self, policy, answers):
        self.answers = {
            policy.encode(prompt): (*policy.encode(text), 0) for prompt, text in answers.items()
        }
        self.calls = []

    def generate(self, prompts, n, sampling):
        self.calls.append((len(prompts), n, sampling))
        answered = [self.answers[prompt] for prompt in prompts]
        return [(Completion(ids, (0.0,) * len(ids), "stop", 0),) for ids in answered]

    def sync(self):
        pass

    def close(self):
        pass


def test_evaluate_generates_and_grades_in_order():
    policy = WordPolicy()
    texts = {sample.prompt: text for sample, text in zip(SAMPLES, TEXTS, strict=True)}
    engine = ScriptedEngine(policy, texts)
    sampling = SamplingParams(max_tokens=64, temperature=0.0)
    done = []
    report = plain.evaluate(
        policy, engine, SAMPLES, sampling, batch_size=3, progress=lambda *now: done.append(now)
    )
    assert [record.response for record in report.records] == list(TEXTS)
    assert report.metrics["accuracy"] == pytest.approx(2 / 3)
    # Words between blanks, and the EOS token.
    assert [record.tokens for record in report.records] == [13, 13, 2, 3]
    assert engine.calls == [(3, 1, sampling), (1, 1, sampling)]
    assert done == [(3, 4), (4, 4)]


class TestCheckpoint:
    def test_no_checkpoint(self, tmp_path):
        with pytest.raises(CheckpointError):
            evaluate_checkpoint(tmp_path / "missing")
        with pytest.raises(CheckpointError):
            evaluate_checkpoint(tmp_path)

    def test_no_held_out_samples(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(CheckpointError, match="records no held-out samples"):
            evaluate_checkpoint(tmp_path)

    def test_max_samples(self, tmp_path):
        with pytest.raises(ConfigError, match="max_samples=0"):
            evaluate_checkpoint(tmp_path, max_samples=0)

    def test_a_real_model_end_to_end(self, tmp_path):
        samples = [Sample("Is Ann from Ohio", "Yes", task="t"), Sample("Is Bob", "No", task="t")]
        settings = {"generation_max_length": 3, "system_prompt": "", "min_steps": 4}
        with writing_folder(tmp_path / "final") as folder:
            save_tiny_model(folder)
            write_samples(folder / "eval.jsonl", samples)
            (folder / "judicaita.json").write_text(json.dumps({"config": settings}))
        final = tmp_path / "final"
        report = evaluate_checkpoint(final, device="cpu", output_file=tmp_path / "out.json")
        assert report.metrics["graded"] == 2
        assert all(1 <= record.tokens <= 3 for record in report.records)
        written = json.loads((tmp_path / "out.json").read_text())
        assert written == json.loads(json.dumps(report.to_dict()))
        [drawn] = evaluate_checkpoint(final, samples, max_samples=1, device="cpu").records
        assert drawn in report.records

    def test_a_family_by_name(self, tmp_path):
        settings = {"generation_max_length": 1, "system_prompt": ""}
        final = tmp_path / "final"
        with writing_folder(final) as folder:
            save_tiny_model(folder)
            (folder / "judicaita.json").write_text(json.dumps({"config": settings}))
        report = evaluate_checkpoint(final, "hearsay,negligence", max_samples=6, device="cpu")
        assert report.metrics["checked"] == 6
        counts = {name: figures["samples"] for name, figures in report.by_family.items()}
        assert counts == {"hearsay": 3, "negligence": 3}
        for record in report.records:
            family = get_family(record.family)
            assert split_of(family.pattern(family.parse(record.prompt))) == "eval"
        with pytest.raises(DataError, match=r"neither a generated family.* Did you mean 'hearsay'"):
            evaluate_checkpoint(final, "hearsey", device="cpu")


def save_tiny_model(folder):
    """A Gemma-2 with random weights of a few kilobytes, and a tokenizer of a dozen words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<bos>", "<unk>", *["Is", "Ann", "Bob", "from", "Ohio", "Yes", "No"]]
    backend = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    config = Gemma2Config(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    Gemma2ForCausalLM(config).save_pretrained(folder)
