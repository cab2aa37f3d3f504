"""Sentences of the verdict that could claim more than was measured."""

import re
from types import SimpleNamespace

import pytest

from ivcore.verdict import explanations, lineage, sentences


def test_a_difference_is_said_as_what_the_test_found():
    row = {"arm": "a", "arm_b": "a", "a": "s2/sim", "b": "clip/sim", "direction": "t2v", "by_seed": [4.7]}
    row |= {"delta_r1": 4.7, "ci95": [0.3, 9.0], "is_clear": True, "p": 0.03, "smallest_detectable": 9.0}
    assert sentences.difference(row).endswith("is ahead of clip (+4.7 points [0.3, 9.0]).")
    open_ = {**row, "ci95": [0.0, 9.0], "is_clear": False, "p": 0.06}
    assert "no difference shown" in sentences.difference(open_)
    assert "too few families to tell" in sentences.difference({**open_, "too_few": True})


def test_one_seed_says_first_what_it_cannot_know():
    verdict = {"protocol": {"seeds": [3]}}
    (line,) = sentences._one_run(verdict)
    assert line.startswith("One training run (seed 3)") and line.endswith(
        "another run would move the figures is not known."
    )
    assert sentences._one_run({"protocol": {"seeds": [0, 1]}}) == []


@pytest.mark.parametrize(
    "batches, contrast, told",
    [
        ("scenes with their swaps in 70 %", "all other clips of the batch", True),
        ("clips that are confused", "all other clips of the batch", True),
        ("scenes with their swaps", "all other clips of the batch but those of the same scene", False),
        ("scenes with their swaps", "off", False),
        ("random clips", "all other clips of the batch", False),
    ],
)
def test_harder_batches_of_one_contrast_are_said(batches, contrast, told):
    easy = {"batches": "random clips", "contrast": "all other clips of the batch"}
    rows = [
        {"model": "s2", **easy},
        {"model": "s2", "batches": batches, "contrast": contrast},
        {"model": "clip", **easy},
    ]
    verdict = {"negatives": [{"arm": "main", **r} for r in rows], "protocol": {}}
    found = explanations.of_contest(verdict, "main")
    assert bool(found) == told and all("a lead of s2 over clip may come from that" in line for line in found)


@pytest.mark.parametrize(
    "phases, told",
    [
        (
            [("neighbours", 1, 0, "all"), ("families", 0, 1, "all")],
            "similarity learned from one kind .*confused.* another",
        ),
        ([("neighbours", 1, 0, "other_scenes"), ("families", 0, 1, "all")], "similarity learned from one kind"),
        (
            [("families", 1, 1, "all"), ("neighbours", 0, 1, "all")],
            "both learned .*swaps.*, matching from clips that are",
        ),
        ([("families", 1, 1, "other_scenes")], "matching learned from .*similarity did not"),
        ([("random", 1, 1, "all")], "neither learned"),
        ([("random", 1, 0, "all")], "was not trained"),
    ],
)
def test_who_learned_from_hard_negatives(phases, told):
    made = [
        {"kind": "s2", "facts": {}, "config": {"phase": {"batches": b, "vtc": c, "vtm": m, "vtc_negatives": n}}}
        for b, c, m, n in phases
    ]
    assert re.search(told, lineage.condition(SimpleNamespace(phases=made, model="s2")))


def test_what_imported_weights_knew_before_is_not_known():
    trained = {"kind": "clip", "facts": {}, "config": {"phase": {"languages": ["en"], "long_share": 0.0}}}
    run = SimpleNamespace(phases=[trained], model="clip")
    run._taught = lambda field: lineage.Scored._taught(run, field)
    assert (lineage.Scored.languages(run), lineage.Scored.text_classes(run)) == (["en"], ["short"])
    run.phases = [{"kind": "clip", "facts": {}, "config": {"imported": {}}}, trained]
    assert (lineage.Scored.languages(run), lineage.Scored.text_classes(run)) == ([], [])


def test_what_a_model_knows_is_said_by_arm():
    def row(arm, language, trained):
        return {"arm": arm, "model": "s2", "language": language, "text_class": "short"} | {
            "language_trained": trained, "text_class_trained": True
        }  # fmt: skip

    rows = [
        row("a", "en", True),
        row("a", "zh", False),
        row("b", "en", True),
        row("b", "zh", True),
        row("c", "en", False),
    ]
    assert sentences._trained_on({"rows": rows, "protocol": {"arms": ["a", "b", "c"]}}) == [
        "s2 of a was trained on English, short captions alone: what it does with other captions is left out here.",
        "s2 of c was trained on none of these captions.",
    ]
