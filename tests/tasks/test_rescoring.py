"""A champion scored on the challenger's data comes out as if it had been scored there at once."""

import pytest

from ivcore import steps
from ivcore.store import schemas
from tasks import rescoring
from tests.ivcore.train.chain import Chain


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return Chain(tmp_path_factory.mktemp("chain"), ["eval.latency_queries=10"])


@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_scores_like_those_of_another_model(chain, kind):
    store, c = chain.store, chain.config
    old = chain.last if kind == "s2" else chain.run(chain.clip(c.train.clip.phases[1], chain.last))

    def scored(checkpoint, **asked):
        evaluation = c.eval.model_copy(update={"k": 2, **asked})
        return chain.run(steps.score(store, evaluation, c.train, chain.manifest, chain.features, checkpoint))

    challenger, before = scored(chain.first), scored(old, split="val", k=3)
    found = rescoring.like(store, challenger, old, before)
    asked = [(x.record()["config"], x.record()["inputs"]["manifest"]) for x in (challenger, found)]
    assert asked[0] == asked[1] and found.record()["inputs"]["checkpoint"] == old.id
    at_once = scored(old)
    rows = [list(schemas.rows(x.path / "scores.parquet", schemas.SCORES)) for x in (found, at_once)]
    assert [(r["query_id"], r["candidate_id"], r["rank"]) for r in rows[0]] == [
        (r["query_id"], r["candidate_id"], r["rank"]) for r in rows[1]
    ]
    assert [r["score"] for r in rows[0]] == pytest.approx([r["score"] for r in rows[1]], abs=2e-3)  # other batches
    assert rescoring.like(store, challenger, old, before) == found
