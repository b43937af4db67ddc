"""A new task for a finished run: spoken languages are told apart, in 64 new ids, while the old tasks are kept up.

    python -m data_pipelines.corpora.synthetic --out runs/corpus --domain language --minutes 100
    python -m data_pipelines.builder --corpus runs/corpus/language --task language_recognition \\
        --out runs/quickstart/data/tokens
    python -m uniaudio_jax.train configs/finetune.py --out runs/finetune

The old tasks are drawn by their hours to the power of 0.05, as arXiv 2310.00704 does, and the new one as often as all
of them together. Their held-out losses stand side by side in what the training prints and logs.
"""

from dataclasses import replace

from configs import quickstart
from uniaudio_jax.config import OptimConfig, RunConfig
from uniaudio_jax.vocab import LANGUAGES

NEW_TASK = "language_recognition"


def get_config() -> RunConfig:
    """Two CPU cores, two minutes after the quickstart: it shows the way, and does not yet tell languages apart."""
    run = quickstart.get_config()
    old = dict.fromkeys(run.data.tasks, 1.0)
    return replace(
        run,
        name="finetune",
        start_from="runs/quickstart",
        model=replace(run.model, vocabulary=run.model.vocabulary + LANGUAGES, appended={"language": LANGUAGES}),
        data=replace(run.data, tasks={**old, NEW_TASK: float(len(old))}, hours_power=0.05),
        train=replace(run.train, steps=150, evaluate_every_steps=50),
        optim=OptimConfig(peak_learning_rate=1e-3, warmup_steps=10),
    )
