"""The page: a tab for each task of a run, made from the task's row."""

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from uniaudio_jax.demo.given import MIDI, SPAN, TEXT_FIELDS, Limits, fields_given, read_given
from uniaudio_jax.packages import load_package
from uniaudio_jax.run import Run
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.tasks import Task, get_task

INSTALL = "bash launch/install.sh demo"
ENDS = ("from", "to")
KEPT_SECONDS = 600
"""How long a result can be fetched again; what a visitor has sent goes with the request."""


def build_page(run: Run, limits: Limits, sampling: Sampling) -> Any:
    """The blocks of gradio, with a tab and an endpoint for each task that the run was trained on.

    Audio is played while it is made, for which gradio needs the program ffmpeg; without it, it comes when it is whole.
    """
    gr = load_package("gradio", "the demo", INSTALL)
    streaming = shutil.which("ffmpeg") is not None
    if not streaming:
        print("there is no program ffmpeg: audio comes when it is whole, and not while it is made")
    title = f"{run.config.name}, step {run.step}"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        gr.Markdown(f"# {title}\nRecordings stay on this machine and are deleted as soon as their result is made.")
        for name in run.config.data.tasks:
            with gr.Tab(name.replace("_", " ")):
                _add_task(gr, run, get_task(name), limits, sampling, streaming)
    return page.queue(max_size=limits.waiting, default_concurrency_limit=1)


def _add_task(gr: Any, run: Run, task: Task, limits: Limits, sampling: Sampling, streaming: bool) -> None:
    with gr.Row():
        with gr.Column():
            inputs = {key: part for name in fields_given(task) for key, part in _components(gr, name, limits).items()}
            inputs["seed"] = gr.Number(sampling.seed, label="seed: another number gives another result", precision=0)
            button = gr.Button("Generate", variant="primary")
        with gr.Column():
            if task.makes_audio:
                result = gr.Audio(
                    label="result", streaming=streaming, autoplay=streaming, interactive=False, buttons=["download"]
                )
            else:
                result = gr.Textbox(label="result", interactive=False)
    answer = _answer(gr, run, task, limits, sampling, streaming)
    done = button.click(answer, outputs=result, inputs_kwargs=inputs, api_name=task.name, concurrency_id="model")
    for part in inputs.values():
        if isinstance(part, gr.Audio | gr.File):  # whose file is gone
            done.then(lambda: None, outputs=part, api_visibility="private", queue=False)


def _components(gr: Any, name: str, limits: Limits) -> dict[str, Any]:
    """What a field is entered with, by the name of each value: two numbers for a span, else one component."""
    label = name.replace("_", " ")
    if name in TEXT_FIELDS:
        return {name: gr.Textbox(label=label, max_length=limits.letters)}
    if name == MIDI:
        return {name: gr.File(label=label, file_types=[".mid", ".midi"])}
    if name == SPAN:
        return {f"{name}_{end}": gr.Number(label=f"{label}, {end}", minimum=0) for end in ENDS}
    return {name: gr.Audio(label=f"{label}, at most {limits.seconds:g} s", type="filepath", buttons=[])}


def _answer(
    gr: Any, run: Run, task: Task, limits: Limits, sampling: Sampling, streaming: bool
) -> Callable[..., Iterator[Any]]:
    """The function behind the button: values of the components to pieces of the result."""

    def answer(**values: Any) -> Iterator[Any]:
        given = {
            name: tuple(values[f"{name}_{end}"] for end in ENDS) if name == SPAN else values[name]
            for name in fields_given(task)
        }
        chosen = replace(sampling, seed=int(values["seed"] or 0))
        try:
            conditions = read_given(given, limits, run.codec.sample_rate_hz)
            if not task.makes_audio:
                yield run.generate(task.name, sampling=chosen, seconds=limits.seconds, **conditions)
                return
            pieces = run.stream(task.name, sampling=chosen, seconds=limits.seconds, **conditions)
            yield from playable(pieces, run.codec.sample_rate_hz, streaming)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        finally:
            for value in values.values():
                _delete(value, Path(gr.utils.get_upload_folder()))

    return answer


def playable(pieces: Iterator[np.ndarray], rate_hz: int, streaming: bool) -> Iterator[bytes | tuple[int, np.ndarray]]:
    """Each piece as a wav file, or all as one waveform. Raises ValueError where there is none."""
    heard = []
    for piece in pieces:
        heard.append(piece)
        if streaming:
            file = io.BytesIO()
            soundfile.write(file, piece, rate_hz, format="WAV", subtype="PCM_16")
            yield file.getvalue()
    if not heard:
        raise ValueError("the model made no sound this time; try another seed")
    if not streaming:
        yield rate_hz, np.round(np.clip(np.concatenate(heard), -1, 1) * 32767).astype(np.int16)


def _delete(value: Any, folder: Path) -> None:
    """Deletes a file that a visitor has sent."""
    if isinstance(value, str) and Path(value).is_relative_to(folder):
        Path(value).unlink(missing_ok=True)
