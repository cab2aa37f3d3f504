"""The one config tree: run file, --set override, Prefect flow parameter and MLflow params are this same value."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from ivcore.config.branch import (
    Branch,
    Json,
    Language,
    TextClass,
    one_of,
    when_set,
)
from ivcore.config.data import DataConfig, FeaturesConfig, FramesConfig, PartConfig, SyntheticConfig
from ivcore.config.train import ModelConfig, Phase, StageConfig, TrainConfig
from ivcore.config.values import (
    RUNS,
    flatten,
    merge,
    named_values,
    override,
    read_toml,
    toml_value,
)
from ivcore.errors import UserError

__all__ = [
    "RUNS",
    "Arm",
    "Branch",
    "DataConfig",
    "EvalConfig",
    "FeaturesConfig",
    "FramesConfig",
    "GridConfig",
    "ModelConfig",
    "PartConfig",
    "Phase",
    "RunConfig",
    "StageConfig",
    "SyntheticConfig",
    "TrainConfig",
    "flatten",
    "load",
    "merge",
    "override",
    "parse",
    "variants",
]


class EvalConfig(Branch):
    """What is scored and how sure the answer has to be."""

    split: Literal["train", "val", "test"] = Field("test", description="Split that is scored.")
    k: int = Field(16, ge=1, description="Candidates that s2's matching head re-scores for each query.")
    languages: tuple[Language, ...] = Field(("en", "zh", "es"), min_length=1, description="Languages of the queries.")
    text_classes: tuple[TextClass, ...] = Field(("short", "long"), min_length=1, description="Caption lengths scored.")
    kv_gb: float = when_set(
        0.25, "Keys and values that a timed server keeps for matching, GB; what is beyond is read folded.", ge=0
    )
    prompts: str = Field("actions16", description="Prompts of classification: a file of ivcore/retrieval/prompts.")
    bootstrap: int = Field(
        2000, ge=100, description="Read so that older configs run, and not used: intervals are computed, not drawn."
    )
    seed: int = Field(0, ge=0, description="Seed of the example queries.")
    latency_queries: int = Field(60, ge=10, description="Queries timed one by one for p50 and p95.")
    examples: int = Field(6, ge=0, description="Example queries shown with frames in the report.")


class GridConfig(Branch):
    """What `iv grid` looks at beside the languages, lengths and k of `eval`; all are encoded once."""

    data: tuple[PartConfig, ...] = Field(
        (), description="Data sets that are scored beside the run's own; nothing is trained on them."
    )

    frames: tuple[int, ...] = Field((), description="Frames taken from a clip; none: as many as frames.num_frames.")
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = Field(
        ("float32", "bfloat16"), min_length=1, description="Arithmetic of encoding and scoring; training keeps its own."
    )


class Arm(Branch):
    """A named set of overrides: arms of a run differ in these and in nothing else."""

    name: str = Field("main", pattern=r"^[a-z][a-z0-9_]*$", description="Name of the arm, as in the report.")
    set: dict[str, Json] = Field({}, description="Dotted config names and their values, as after --set.")


class RunConfig(Branch):
    """A run: everything that decides the result. `run` names the file whose values hold where this one says nothing."""

    run: str = one_of(
        "",
        RUNS,
        ".toml",
        "A named run of ivcore/runs that fills what is not set here; in a form that is filled in, only its name.",
        also=("",),
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Each seed is a whole run: data, weights, batches.")
    arms: tuple[Arm, ...] = Field((Arm(),), min_length=1, description="Variants run side by side.")
    data: DataConfig = Field(DataConfig(), description="Videos and captions.")
    frames: FramesConfig = Field(FramesConfig(), description="Frames taken from the videos.")
    model: ModelConfig = Field(ModelConfig(), description="Model size.")
    train: TrainConfig = Field(TrainConfig(), description="s2 pretraining and clip fine-tuning.")
    features: FeaturesConfig = Field(FeaturesConfig(), description="Token features of the frozen trunk.")
    eval: EvalConfig = Field(EvalConfig(), description="Scoring and statistics.")
    grid: GridConfig = Field(GridConfig(), description="Cells of `iv grid`.")

    @model_validator(mode="after")
    def _towers(self) -> "RunConfig":
        wrong = [f"s2.phases.{p.name}" for p in self.train.s2.phases if p.text_tower != "own"]
        first = 0 if self.model.clip_init else 1  # imported clip weights bring their tower
        wrong += [f"clip.phases.{p.name}" for p in self.train.clip.phases[first:] if p.text_tower != "own"]
        if wrong:
            raise ValueError(
                f"train.{wrong[0]}.text_tower: a tower is chosen by clip's first phase, which begins from s2"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_from_named_run(cls, values: Any) -> Any:
        """Read the named run under the values given, so `{"run": "demo"}` is a whole config."""
        if isinstance(values, dict) and values.get("run"):
            return merge(named_values(values["run"]), values)
        return values


def parse(values: dict[str, Json], source: str = "config") -> RunConfig:
    """A checked RunConfig, or a UserError that names each field, its value and what is wrong."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as e:
        lines = []
        for error in e.errors():
            spot = ".".join(str(p) for p in error["loc"]) or source
            what = _unknown(error["loc"]) if error["type"] == "extra_forbidden" else error["msg"]
            lines.append(f"{spot} = {error['input']!r:.60}: {what}")
        raise UserError(f"{source}: " + "; ".join(lines)) from None


def _unknown(spot: tuple[int | str, ...]) -> str:
    """What to say of a name that is no field: the field that was meant, or those there are."""
    branch: Any = RunConfig
    for name in spot[:-1]:
        if isinstance(name, str) and name in branch.model_fields:
            inner = branch.model_fields[name].annotation
            types = [t for t in (inner, *get_args(inner)) if isinstance(t, type) and issubclass(t, Branch)]
            branch = (types or [branch])[0]
    near = difflib.get_close_matches(str(spot[-1]), branch.model_fields, n=1)
    return f"no such field; {f'{near[0]} is meant?' if near else 'there are ' + ', '.join(branch.model_fields)}"


def load(source: str, sets: Iterable[str] = ()) -> RunConfig:
    """The run named or at the path `source`, with `a.b=value` overrides (TOML values; a bare word is a string)."""
    values = read_toml(Path(source)) if source.endswith(".toml") or "/" in source else {"run": source}
    values = parse(values, source).model_dump(mode="json")  # whole, so that an override can reach into its lists
    for item in sets:
        name, eq, text = item.partition("=")
        if not eq:
            raise UserError(f"--set {item!r} has no '='; write --set train.clip.lr=1e-4")
        values = override(values, name.strip(), toml_value(text))
    return parse(values, source)


def variants(config: RunConfig) -> list[tuple[str, int, RunConfig]]:
    """One (arm, seed, config) for each arm and seed; in the config seed and overrides are already applied."""
    out = []
    for arm in config.arms:
        for seed in config.seeds:
            values = config.model_dump(mode="json", exclude={"run"})
            values = {**values, "seeds": [seed], "arms": [{"name": arm.name}]}
            for name, value in {"data.synthetic.seed": seed, "train.seed": seed, **arm.set}.items():
                values = override(values, name, value)
            out.append((arm.name, seed, parse(values, f"arm {arm.name}")))
    return out
