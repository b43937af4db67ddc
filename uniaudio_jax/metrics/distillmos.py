"""DistillMOS: the mean opinion score of speech, guessed by a model without a reference."""

import contextlib
import functools
import io
from typing import Any

from threadpoolctl import threadpool_limits

from uniaudio_jax.metrics.judges import Judges, Model, packaged_model
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import Sample, Score, Scores, at_rate, waveforms_of
from uniaudio_jax.packages import load_package, stand_in

LOWEST, HIGHEST = 1.0, 5.0
INSTALL = "bash launch/install.sh judges"


def distillmos(sample: Sample, model: Model) -> Scores:
    """The opinion of the estimate alone, 1 to 5, higher is better (Stahl and Gamper 2025, by the package distillmos).

    A silent or empty estimate has the lowest value, 1. In one thread: PyTorch's own are up to four times slower beside
    those of other libraries. It hears little harm in noise behind a synthetic voice.
    """
    wav = at_rate(waveforms_of(sample)[1], sample.sample_rate_hz, model.rate_hz)
    if not wav.any():
        return {"distillmos": Score(LOWEST, 1.0)}
    torch = load_package("torch", "metric distillmos", INSTALL)
    with torch.inference_mode(), threadpool_limits(1, "openmp"):
        return {"distillmos": Score(float(_network()(torch.from_numpy(wav[None]))), 1.0)}


@functools.cache
def _network() -> Any:
    """The package's network, without the line that it prints; it needs torchaudio for files alone, which are ours to
    read."""
    with stand_in("torchaudio"), contextlib.redirect_stdout(io.StringIO()):
        package = load_package("distillmos", "metric distillmos", INSTALL)
        return package.ConvTransformerSQAModel().eval()


def distillmos_model(judges: Judges) -> Model | None:
    return packaged_model("distillmos", "weights/distill_mos_v7.pt")


DISTILLMOS = MetricKind(
    measure=distillmos,
    scales={"distillmos": Scale("higher", LOWEST, HIGHEST)},
    packages=("distillmos", "torch"),
    extra="judges",
    model=distillmos_model,
)
