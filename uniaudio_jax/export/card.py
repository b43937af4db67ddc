"""The model card of an exported run: what the model is, what it was trained on, and a program that uses it."""

from pathlib import Path
from typing import Any

from uniaudio_jax.config import RunConfig
from uniaudio_jax.convert import config_to_json
from uniaudio_jax.export.onnx_folder import GRAPH
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

{needs} are all that this folder needs.

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
ONNX_EXAMPLE = """import numpy as np

from onnx_generate import UniAudio

model = UniAudio(".")
prompt = model.prompt(
    {parts},
)
(tokens,) = model.generate([prompt], frames=50{texts}, temperature=0.8, top_k=30, seed=0)
codes = model.codes(tokens)
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
ONNX_VALUES = {
    "codes": "model.tokens(np.zeros((0, {codebooks}))),  # codes [frames, {codebooks}], which a codec's encoder makes",
    "ids": 'model.ids("{span}", [0, 1]),  # ids, counted from 0',
    "vectors": '"<continuous_token>",  # for each vector of texts',
}
"""The same in the example of ONNX."""


def model_card(run: Run, folder: Path, parameters: int, has_certificate: bool) -> str:
    """The text of README.md for the other files of a folder."""
    sizes = {name: value for name, value in config_to_json(run.config.model).items() if isinstance(value, int)}
    has_codec, is_onnx = (folder / "codec.json").is_file(), (folder / GRAPH).is_file()
    decoder = "Its audio is decoded by the codec that it was trained with, which this folder lacks."
    if has_codec:
        decoder = f"`codec.safetensors` holds the decoder of the codec {run.codec.config.name}."
    return CARD.format(
        name=run.config.name,
        millions=parameters / 1e6,
        step=run.step,
        sizes="\n".join(f"| {name} | {size} |" for name, size in sizes.items()),
        tasks=", ".join(run.config.data.tasks),
        trained_on=trained_on(run.meta),
        needs="numpy and onnxruntime" if is_onnx else "PyTorch and safetensors",
        example=onnx_example(run.config) if is_onnx else example(run, has_codec),
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
    task = _first_task(run.config)
    if task is None:
        return 'from modeling_uniaudio import UniAudio\n\nmodel = UniAudio.from_pretrained(".")\n'
    arguments = ", ".join([f'"{task.name}"', *(f"{stream.key}={stream.key}" for stream in task.conditions)])
    return EXAMPLE.format(conditions=_conditions(run, task), arguments=arguments) + (DECODE if has_codec else "")


def onnx_example(config: RunConfig) -> str:
    """The same for onnxruntime."""
    task = _first_task(config)
    if task is None:
        return 'from onnx_generate import UniAudio\n\nmodel = UniAudio(".")\n'
    parts, model = [f'"<start>", "{task.token}",'], config.model
    for stream in task.conditions:
        value = ONNX_VALUES[KINDS[stream.kind].form].format(codebooks=model.codebooks, span=KINDS[stream.kind].span)
        parts += [f'"<{stream.kind}_start>",', value, f'"<{stream.kind}_end>",']
    parts.append(f'"<{task.target.kind}_start>"')
    texts = sum(KINDS[stream.kind].form == "vectors" for stream in task.conditions)
    given = f", texts=[np.zeros(({texts}, {model.text_width}))]" if texts else ""
    return ONNX_EXAMPLE.format(parts="\n    ".join(parts), texts=given)


def _first_task(config: RunConfig) -> Task | None:
    """The first task of a run that makes audio, with ids for it."""
    tasks = [task for task in map(get_task, config.data.tasks) if task.makes_audio]
    return next((task for task in tasks if is_possible(task, config.model.ids)), None)


def _conditions(run: Run, task: Task) -> str:
    sizes = {"codebooks": run.config.model.codebooks, "text_width": run.config.model.text_width}
    values = ((stream.key, VALUES.get(stream.kind, VALUES[KINDS[stream.kind].form])) for stream in task.conditions)
    return "".join(f"{key} = {value.format(**sizes)}\n" for key, value in values)
