"""Champion and challenger: two versions of a model in MLflow's registry, judged on the same queries by the paired test.

The alias `champion` moves only to a challenger that is better with the stated confidence; either way both versions
and the run's page say what was found.
"""

from dataclasses import dataclass
from pathlib import Path

from ivcore.config import EvalConfig
from ivcore.errors import UserError, WorkError
from ivcore.store.artifacts import Artifact, Store
from ivcore.verdict import lineage, tables
from tasks import registry, rescoring

HEADS = {"s2": "match", "clip": "sim"}  # what each model is taken for


@dataclass(frozen=True)
class Judgement:
    """What became of a challenge."""

    kind: str
    champion: str | None  # number of the version before
    challenger: str
    promoted: bool
    why: str


def promote(home: Path, kind: str, challenger: str, evaluation: EvalConfig) -> Judgement:
    """Judge a challenger (`newest`, a version's number or an alias) and move the aliases of iv-KIND as it deserves.

    Raises:
        UserError: there is no such version.
        WorkError: the two were not scored on the same queries.
    """
    found = registry.version(kind, challenger)
    if found is None:
        raise UserError(f"iv-{kind} has no version {challenger!r} in the registry; train one, or name another")
    number, key = found
    before = registry.version(kind, "champion")
    registry.move(kind, "challenger", number, "named the challenger")
    if before is None:
        promoted, why = True, "the first champion: there was none to compare with"
    elif before[0] == number:
        promoted, why = False, "it is the champion already"
    else:
        promoted, why = _compare(Store(home), kind, key, before[1], evaluation)
    if promoted:
        registry.move(kind, "champion", number, why)
    elif before and before[0] != number:
        registry.tell(kind, "challenged", number, why)
    return Judgement(kind, before[0] if before else None, number, promoted, why)


def _compare(store: Store, kind: str, new: str, old: str, evaluation: EvalConfig) -> tuple[bool, str]:
    """Better with 95 % confidence? And in words. R@1, text to video, of the first language and caption length."""
    left, right = _same_protocol(store, kind, new, old)
    runs = [lineage.trace(store, f"{arm}.0.{kind}", s) for arm, s in (("challenger", left), ("champion", right))]
    head, place = f"{kind}/{HEADS[kind]}", (evaluation.languages[0], evaluation.text_classes[0], "t2v")
    for row in tables.paired(runs, tables.outcomes(runs, evaluation)):
        if (row["arm"], row["arm_b"], row["a"], row["b"]) != ("challenger", "champion", head, head):
            continue
        if (row["language"], row["text_class"], row["direction"]) != place:
            continue
        low, high = row["ci95"]
        better = row["is_clear"] and row["delta_r1"] > 0
        said = "too few to tell" if row["too_few"] else "not shown to be better"
        words = (
            f"R@1 of {head}, {place[0]} {place[1]} {place[2]}: {row['delta_r1']:+.2f} points over the champion, "
            f"95 % interval {low:+.2f} to {high:+.2f}, p {row['p']}, {row['n']} queries of "
            f"{row['families']} families ({left.id} against {right.id})"
        )
        return better, f"{'better with 95 % confidence' if better else said}: {words}"
    raise WorkError(f"challenger and champion of iv-{kind} share no queries ({left.id}, {right.id}); score both again")


def _same_protocol(store: Store, kind: str, new: str, old: str) -> tuple[Artifact, Artifact]:
    """Scores of both checkpoints, equal in everything that was asked; the old one is scored anew where it was not."""
    of: dict[str, list[Artifact]] = {new: [], old: []}
    for artifact in store.all():
        if artifact.kind == "scores":
            key = artifact.record()["inputs"]["checkpoint"].partition("/")[2]
            of.get(key, []).append(artifact)
    for key, found in of.items():
        if not found:
            raise WorkError(f"{kind}/{key} has no scores in {store.home}; run `evaluate` on it first")
    for a in of[new]:
        for b in of[old]:
            asked = [(s.record()["version"], s.record()["config"], s.record()["inputs"]["manifest"]) for s in (a, b)]
            if asked[0] == asked[1]:
                return a, b
    newest = max(of[new], key=lambda scores: str(scores.record()["created"]))
    return newest, rescoring.like(store, newest, store.get(f"{kind}/{old}"), of[old][0])
