import pytest

from ivcore.config import (
    RunConfig,
    flatten,
    load,
    override,
    parse,
    variants,
)
from ivcore.errors import UserError


def test_an_unknown_name_is_named():
    with pytest.raises(UserError, match=r"train\.clip\.lrr = 0\.1: no such field; lr is meant"):
        parse({"train": {"clip": {"lrr": 0.1, "phases": [{"name": "a", "steps": 1}]}}})
    with pytest.raises(UserError, match=r"no such field; there are .*seeds, arms"):
        parse({"wholly": 1})
    with pytest.raises(UserError, match="no run is named 'nope'"):
        load("nope")
    with pytest.raises(UserError, match=r"no config file at .*gone\.toml"):
        load("/nowhere/gone.toml")


def test_a_wrong_value_is_named():
    with pytest.raises(UserError, match=r"frames\.num_frames = 0"):
        parse({"frames": {"num_frames": 0}})
    with pytest.raises(UserError, match="has no '='"):
        load("demo", ["frames.num_frames"])


def test_set_reaches_phases_by_name_and_by_index(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        '[train.s2]\nphases = [{name = "warm", steps = 3}, {name = "hard", steps = 4}]\n[train.clip]\nlr = 0.01\n'
        'phases = [{name = "pooler", steps = 2}]'
    )
    config = load(str(path), ["train.s2.phases.hard.steps=9", "train.clip.phases.0.lr_scale=0.5", "model.size=B14"])
    assert [p.steps for p in config.train.s2.phases] == [3, 9]
    assert config.train.clip.phases[0].lr_scale == 0.5 and config.model.size == "B14"
    with pytest.raises(UserError, match="no item 'gone'"):
        load(str(path), ["train.s2.phases.gone.steps=9"])
    with pytest.raises(UserError, match="is a value, not a table"):
        override({"a": 1}, "a.b", 2)


def test_variants_are_every_arm_with_every_seed():
    arms = [{"name": "plain"}, {"name": "slow", "set": {"train.clip.lr": 1e-5}}]
    found = variants(parse({"seeds": [0, 7], "arms": arms}))
    assert [(arm, seed) for arm, seed, _ in found] == [("plain", 0), ("plain", 7), ("slow", 0), ("slow", 7)]
    for arm, seed, config in found:
        assert (config.train.seed, config.data.synthetic.seed) == (seed, seed)
        assert (config.train.clip.lr == 1e-5) == (arm == "slow")
    assert found[0][2].frames == found[2][2].frames


def test_an_arm_that_sets_nonsense_is_named():
    with pytest.raises(UserError, match=r"arm odd: train\.nope"):
        variants(parse({"arms": [{"name": "odd", "set": {"train.nope": 1}}]}))


def test_speed_stays_out_of_the_recipe():
    recipe = parse({"frames": {"workers": 3, "deadline_s": 5}}).frames.recipe()
    assert recipe == parse({}).frames.recipe() and "workers" not in recipe


def test_the_named_run_fills_what_is_not_set():
    demo = parse({"run": "demo"})
    assert parse({"run": "demo", "frames": {"num_frames": 3}}).frames.num_frames == 3
    assert parse({"run": "demo", "frames": {"num_frames": 3}}).data == demo.data
    assert RunConfig.model_validate(demo.model_dump(mode="json")) == demo


def test_flatten_names_phases():
    flat = flatten(parse({}).model_dump(mode="json"))
    assert flat["train.s2.phases.pretrain.steps"] == 450 and flat["eval.languages"] == '["en", "zh", "es"]'


def test_every_field_has_a_description():
    def walk(schema):
        for name, field in schema.get("properties", {}).items():
            assert field.get("description"), name
        for inner in schema.get("$defs", {}).values():
            walk(inner)

    walk(RunConfig.model_json_schema())
