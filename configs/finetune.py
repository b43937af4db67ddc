"""A new task for a finished run: spoken languages are told apart, in 64 new ids, while the old tasks are kept up.

    bash launch/quickstart.sh --from-scratch
    python -m data_pipelines.synthetic --out runs/corpus --domain language --minutes 100
    python -m data_pipelines.builder --corpus runs/corpus/language --task language_recognition \\
        --out runs/scratch/data/tokens
    python -m uniaudio_jax.train configs/finetune.py --out runs/finetune

The old tasks keep the shares that they were trained with, weighted by their hours to the power of 0.05 as arXiv
2310.00704 does, and the new one gets as many frames as all of them together. A language is a single token beside
hundreds of tokens of audio, so its loss counts more. The learning rate is a tenth of that of the run it starts from:
no old task gets worse by more than a hundredth. The held-out losses of all stand side by side in what the training
prints and logs.

`--train.guard.margin 0.05` lets no old task lose more than 0.05 nats: it goes back where one does, and on with half the
learning rate. Low-rank adapters need a part of the optimizer's memory:

    python -m uniaudio_jax.train configs/finetune.py --out runs/adapters --lora.rank 8 \\
        --lora.also "*.embedding" "local.head.*" --optim.peak-learning-rate 1e-3
"""

from dataclasses import replace

from configs import quickstart
from uniaudio_jax.config import OptimConfig, RunConfig
from uniaudio_jax.vocab import LANGUAGES

NEW_TASK = "language_recognition"
LOSS_WEIGHT = 20.0


def get_config() -> RunConfig:
    """Two CPU cores, two minutes after the quickstart: it shows the way; ten minutes of audio teach little more."""
    run = quickstart.get_config()
    old = run.data.tasks
    return replace(
        run,
        name="finetune",
        start_from="runs/scratch",
        model=replace(run.model, appended={"language": LANGUAGES}),
        data=replace(
            run.data, tasks={**old, NEW_TASK: sum(old.values())}, hours_power=0.05, loss_weights={NEW_TASK: LOSS_WEIGHT}
        ),
        train=replace(run.train, steps=200, evaluate_every_steps=100),
        optim=OptimConfig(name="muon", peak_learning_rate=3e-4, warmup_steps=10),
    )
