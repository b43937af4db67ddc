"""What a metric is: how it is made from the judges, what it measures, and what its scores mean."""

import functools
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from uniaudio_jax.metrics.judges import Judges, Model, option_of
from uniaudio_jax.metrics.sample import Sample, Scores


@dataclass(frozen=True)
class Scale:
    """Which values of a score are better, and its lowest and highest value where it has one."""

    better: Literal["higher", "lower", "nearer to 1"]
    lowest: float | None = None
    highest: float | None = None


@dataclass(frozen=True, kw_only=True)
class About:
    """How a metric measures, to be kept beside its values."""

    scales: Mapping[str, Scale]
    """Of each of its scores, by name."""
    library: str
    """The packages that measure, with their versions."""
    model: str | None = None
    """The file of the weights of the model that judges, where there is one."""
    model_sha256: str | None = None
    rate_hz: int | None = None
    """The sample rate that is judged at; None: that of the sample."""


@dataclass(frozen=True)
class Metric:
    """A measure of one sample."""

    measure: Callable[[Sample], Scores]
    about: About


@dataclass(frozen=True)
class SetMetric:
    """A measure of all samples of a task together, None where it is undefined; it is no mean over samples."""

    measure: Callable[[Sequence[Sample]], float | None]
    about: About


@dataclass(frozen=True, kw_only=True)
class MetricKind:
    """A line of the registry: a metric that is not tied to its model yet."""

    measure: Callable[..., Any]
    """What it measures, of a sample or of a sequence of them; takes the keyword `model` where it has one."""
    scales: Mapping[str, Scale]
    packages: tuple[str, ...] = ()
    """Modules of the optional packages that it needs."""
    extra: str = ""
    """The extra that installs them."""
    rate_hz: int | None = None
    """The sample rate that is judged at, where it is fixed and no model says it."""
    model: Callable[[Judges], Model | None] | None = None
    """The model that it judges with."""
    judge: str = ""
    """The field of `Judges` without which it has no model."""
    of_set: bool = False
    """Whether it is a `SetMetric`."""

    @property
    def installed(self) -> bool:
        return all(importlib.util.find_spec(package) is not None for package in self.packages)

    def remedy(self, judges: Judges) -> str:
        """What to do before this metric can be measured; "" where it can."""
        needs = [] if self.installed else [f"run `bash launch/install.sh {self.extra}`"]
        if self.judge and getattr(judges, self.judge) is None:
            needs.append(f"give {option_of(self.judge)} PATH")
        return " and ".join(needs)

    def make(self, judges: Judges) -> Metric | SetMetric:
        """The metric. Raises ValueError where a path of the judges is wrong."""
        model = self.model(judges) if self.model else None
        about = About(
            scales=self.scales,
            library=", ".join(map(version_of, self.packages or ("uniaudio_jax",))),
            model=str(model.path) if model else None,
            model_sha256=model.sha256 if model else None,
            rate_hz=model.rate_hz if model else self.rate_hz,
        )
        measure = functools.partial(self.measure, model=model) if self.model else self.measure
        return (SetMetric if self.of_set else Metric)(measure, about)


def version_of(module: str) -> str:
    """The package that a module belongs to, and its version."""
    package = _packages().get(module, [module])[0]
    return f"{package} {importlib.metadata.version(package)}"


_packages = functools.cache(importlib.metadata.packages_distributions)
