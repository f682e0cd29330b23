"""What a study is, as its YAML file says it: the data, a base recipe, and per model what differs from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from edgemtl.config import Strict
from edgemtl.data.layout import find_layout
from edgemtl.train.config import TrainConfig, first_error


class Member(Strict):
    """One model of the study: its recipe is `base` changed by `recipe`, key by key, also within mappings."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    what: str = ""  # one line for the table
    init: str | None = Field(None, pattern=r"^[a-z][a-z0-9-]*/(shared|open|paths)$")  # MODEL/STAGE to start from
    recipe: dict[str, Any] = Field(default_factory=dict)


class Study(Strict):
    """The whole comparison. `baseline` names single-task models, one per task, that Δm is against.

    The test set is the `val` split of `test`; without one it is the held-out tenth of the training split, which recipes
    with `holdout: true` do not see: for choosing a recipe without looking at what will be reported.
    """

    data: Path
    test: Path | None = None
    about: str = ""  # the data in words; found in the folders by default
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    baseline: tuple[str, ...] = ()
    base: dict[str, Any] = Field(default_factory=dict)
    models: tuple[Member, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        names = [m.name for m in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"model names repeat: {', '.join(names)}")
        for name in self.baseline:
            if name not in names:
                raise ValueError(f"baseline: there is no model {name!r}; choose from {', '.join(names)}")
        for i, member in enumerate(self.models):
            if member.init and member.init.partition("/")[0] not in names[:i]:
                raise ValueError(f"model {member.name!r} starts from {member.init!r}, which no earlier model makes")
            if self.recipe(member, self.seeds[0]).holdout != (self.test is None):
                raise ValueError(
                    f"model {member.name!r}: give either `test`, a folder whose val split is the test set, or "
                    "`holdout: true` in base"
                )
        return self

    def recipe(self, member: Member, seed: int) -> TrainConfig:
        """The recipe of one model."""
        try:
            return TrainConfig(**{**changed(self.base, member.recipe), "data": self.data, "seed": seed})
        except ValidationError as e:
            raise ValueError(first_error(e, f"model {member.name!r}")) from None

    @property
    def tested_on(self) -> tuple[Path, str]:
        """Folder and split of the test set."""
        return (self.data, "train:hold") if self.test is None else (self.test, "val")

    @property
    def trained_on(self) -> str:
        """The split of `data` that models are trained on."""
        return "train:fit" if self.test is None else "train"


def changed(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `change`; a mapping in both is changed likewise, everything else is replaced."""
    both = {k: changed(base[k], v) for k, v in change.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **change, **both}


def describe(study: Study) -> str:
    """The study's data in words: `about`, or what its folders hold."""
    trained, tested = _title(study.data), _title(study.tested_on[0])
    found = trained if trained == tested else f"{trained}, tested on {tested}"
    return study.about or (f"{found}, a held-out tenth of train" if study.test is None else found)


def _title(root: Path) -> str:
    return find_layout(root).about(root).title
