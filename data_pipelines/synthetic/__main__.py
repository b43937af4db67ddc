"""The command `python -m data_pipelines.synthetic`."""

import tyro

from data_pipelines.synthetic import corpus
from uniaudio_jax.cli import main_guard

if __name__ == "__main__":
    with main_guard():
        corpus.main(tyro.cli(corpus.SyntheticOptions, description=corpus.__doc__))
