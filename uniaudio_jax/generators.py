"""Generation on the devices of one machine: each has the weights, and takes the next prompt when a row is free.

Random numbers belong to prompts, so what comes out does not depend on the number of devices.
"""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from queue import Queue
from typing import Any

import jax
import numpy as np

from uniaudio_jax.decoding import ROWS, Generator, Prompt
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.tasks import Task
from uniaudio_jax.vocab import Vocabulary


class Generators:
    """A generator on each device; the weights are copied to one when it is first needed."""

    def __init__(self, definition: ModelDefinition, params: Params, vocabulary: Vocabulary, devices: Sequence[Any]):
        self._made_of, self._params, self._devices = (definition, vocabulary), params, devices
        self._generators: dict[Any, Generator] = {}

    def stream(self, task: Task, prompt: Prompt, sampling: Sampling) -> Iterator[np.ndarray]:
        """The raw target of one prompt, block after block as it is generated, on the first device."""
        return self._generator(self._devices[0]).stream(task, prompt, sampling)

    def results(
        self, task: Task, prompts: Iterable[Prompt], sampling: Sampling, rows: int = ROWS
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The number and the raw target of each prompt, in the order in which they end; each device works on up to
        `rows` prompts at once, and no more devices work than prompts fill. Raises what a prompt or a device raises."""
        prompts = iter(prompts)
        first = list(itertools.islice(prompts, rows * len(self._devices)))
        prompts, devices = itertools.chain(first, prompts), self._devices[: -(-len(first) // rows) or 1]
        if len(devices) == 1:
            yield from self._generator(devices[0]).results(task, prompts, sampling, rows)
            return
        shared, made = _Shared(prompts), Queue[tuple[int, np.ndarray] | BaseException | None]()

        def work(generator: Generator, device: Any) -> None:
            try:
                with jax.default_device(device):
                    for result in generator.results(task, shared, sampling, rows):
                        made.put(result)
                made.put(None)
            except BaseException as error:  # of whatever kind, it is raised where the results are wanted
                made.put(error)

        for device in devices:
            threading.Thread(target=work, args=(self._generator(device), device), daemon=True).start()
        working = len(devices)
        try:
            while working:
                item = made.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    working -= 1
                else:
                    yield item
        finally:
            shared.close()

    def _generator(self, device: Any) -> Generator:
        if device not in self._generators:
            definition, vocabulary = self._made_of
            self._generators[device] = Generator(definition, jax.device_put(self._params, device), vocabulary)
        return self._generators[device]


class _Shared:
    """An iterator that several threads take from; it ends for all of them when it is closed."""

    def __init__(self, prompts: Iterator[Prompt]):
        self._prompts, self._lock, self._closed = prompts, threading.Lock(), False

    def __iter__(self) -> Iterator[Prompt]:
        return self

    def __next__(self) -> Prompt:
        with self._lock:
            if self._closed:
                raise StopIteration
            return next(self._prompts)

    def close(self) -> None:
        with self._lock:
            self._closed = True
