"""The command `python -m data_pipelines.synthetic`."""

from data_pipelines.synthetic import corpus
from uniaudio_jax.cli import main_guard, parse

if __name__ == "__main__":
    with main_guard():
        corpus.main(parse(corpus.SyntheticOptions, corpus.__doc__))
