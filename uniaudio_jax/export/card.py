"""The model card of an exported run: what the model is, what it was trained on, and a program that uses it."""

from typing import Any

from uniaudio_jax.convert import config_to_json
from uniaudio_jax.export.vocabulary import is_possible
from uniaudio_jax.run import Run
from uniaudio_jax.tasks import KINDS, Task, get_task

CARD = """---
tags: [audio, text-to-speech, uniaudio]
---
# {name}

A UniAudio model ([arXiv 2310.00704](https://arxiv.org/abs/2310.00704)) of {millions:.1f} M parameters, step {step} of a
training with uniaudio_jax. It predicts the codes of an audio codec from phones, codes, notes or text vectors.

| size | |
|---|---|
{sizes}

Tasks it was trained on: {tasks}.

{trained_on}

## Use

PyTorch and safetensors are all that this folder needs.

```python
{example}```

{codec} Text becomes phones by espeak-ng (`espeak-ng --ipa`), which is no part of this folder; `vocabulary.json` lists
the symbols in the order of their ids, and how ARPABET is written with them.

{certificate}
"""
EXAMPLE = """import torch

from modeling_uniaudio import Sampling, UniAudio
from prompts import Vocabulary

model, vocabulary = UniAudio.from_pretrained("."), Vocabulary.from_pretrained(".")
{conditions}prompt = vocabulary.prompt({arguments})
torch.manual_seed(0)
(codes,) = vocabulary.codes(model.generate(**prompt, frames=50, sampling=Sampling(temperature=0.8, top_k=30)))
"""
DECODE = """
from modeling_codec import Codec, write_wav

codec = Codec.from_pretrained(".")
if len(codes):
    write_wav("out.wav", codec.decode(codes), codec.sample_rate_hz)
"""
CERTIFIED = """`certificate.json` says how far this code and these weights are from the run that they were made of, and
has the sha256 of each file; `python -m uniaudio_jax.export_torch --verify .` checks them."""
NOT_CERTIFIED = "It was exported without PyTorch, and has no certificate."
VALUES = {
    "phone": 'vocabulary.phones(["HH", "AH0", "L", "OW1"])',
    "codes": "torch.zeros(0, {codebooks})  # codes [frames, {codebooks}], which a codec's encoder makes of audio",
    "ids": "torch.zeros(0)  # ids, counted from 0",
    "vectors": "torch.zeros(0, {text_width})  # vectors [n, {text_width}] of a text encoder",
}
"""How a condition is written in the example, by its kind or its form."""


def model_card(run: Run, parameters: int, codec: dict[str, Any] | None, has_certificate: bool) -> str:
    """The text of README.md; codec: its sizes where the folder has its decoder."""
    sizes = {name: value for name, value in config_to_json(run.config.model).items() if isinstance(value, int)}
    decoder = "Its audio is decoded by the codec that it was trained with, which this folder lacks."
    if codec:
        decoder = f"`codec.safetensors` holds the decoder of the codec {codec['name']}."
    return CARD.format(
        name=run.config.name,
        millions=parameters / 1e6,
        step=run.step,
        sizes="\n".join(f"| {name} | {size} |" for name, size in sizes.items()),
        tasks=", ".join(run.config.data.tasks),
        trained_on=trained_on(run.meta),
        example=example(run, codec is not None),
        codec=decoder,
        certificate=CERTIFIED if has_certificate else NOT_CERTIFIED,
    )


def trained_on(meta: dict[str, Any]) -> str:
    """A line for each corpus that the run's datasets were made of, with its licence."""
    corpora = {}
    for passport in meta.get("datasets", {}).values():
        corpora[passport["corpus"]] = f"- {passport['corpus']}: licence {passport['licence'] or 'unknown'}"
    return "\n".join(["Corpora:", "", *corpora.values()]) if corpora else "Its checkpoint does not say on which data."


def example(run: Run, has_codec: bool) -> str:
    """A program for the first task of the run that makes audio."""
    tasks = [task for task in map(get_task, run.config.data.tasks) if task.makes_audio]
    task = next((task for task in tasks if is_possible(task, run.vocabulary)), None)
    if task is None:
        return 'from modeling_uniaudio import UniAudio\n\nmodel = UniAudio.from_pretrained(".")\n'
    arguments = ", ".join([f'"{task.name}"', *(f"{stream.key}={stream.key}" for stream in task.conditions)])
    return EXAMPLE.format(conditions=_conditions(run, task), arguments=arguments) + (DECODE if has_codec else "")


def _conditions(run: Run, task: Task) -> str:
    sizes = {"codebooks": run.config.model.codebooks, "text_width": run.config.model.text_width}
    values = ((stream.key, VALUES.get(stream.kind, VALUES[KINDS[stream.kind].form])) for stream in task.conditions)
    return "".join(f"{key} = {value.format(**sizes)}\n" for key, value in values)
