"""A job goes to other processes as JSON and is the same there."""

from ivcore.train.job import Job


def test_a_job_read_back_is_the_same(chain, tmp_path):
    c, phase = chain.config, chain.config.train.clip.phases[1]
    branches = {"model": c.model, "train": c.train, "stage": c.train.clip, "phase": phase, "features": c.features}
    artifacts = {"manifest": chain.manifest, "inputs": chain.features}
    for kind, init in (("clip", chain.last), ("s2", None)):
        job = Job(home=chain.store.home, kind=kind, place=tmp_path, init=init, **branches, **artifacts)
        again = Job.model_validate_json(job.model_dump_json())
        assert again == job and again.store.get(again.manifest.id) == chain.manifest
        assert again.text_len == (c.model.clip_text_len if kind == "clip" else c.model.s2_text_len)
