"""Laws of what a run tells of itself."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from uniaudio_jax.checkpoint import check_same, describe
from uniaudio_jax.clock import FrameClock
from uniaudio_jax.config import MeshConfig, RunConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.flops import forward_flops
from uniaudio_jax.loss import Tally
from uniaudio_jax.sharding import make_mesh
from uniaudio_jax.tasks import TASK_NUMBERS, TASKS
from uniaudio_jax.telemetry import HoursSeen, tally_report
from uniaudio_jax.vocab import Vocabulary

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(("codebooks", "share"), [(3, 0.5), (8, 0.72)])
def test_the_local_stacks_share_of_the_work_is_the_papers(codebooks, share):
    model = load_config(CONFIGS / "paper.py", RunConfig).model
    model = replace(model, codebooks=codebooks, vocabulary=Vocabulary(codebooks).size)
    whole, alone = (forward_flops(model, 2048, counted, 2048) for counted in (2048, 0))
    assert abs((whole - alone) / whole - share) < 0.03


def test_the_work_is_proportional_to_the_rows():
    model = load_config(CONFIGS / "paper.py", RunConfig).model
    assert forward_flops(model, 4096, 1024, 2048) == pytest.approx(2 * forward_flops(model, 2048, 512, 2048))


def test_a_report_names_only_tasks_that_had_tokens():
    loss, hits, tokens = tally = Tally(*(np.zeros((len(TASKS), 3)) for _ in range(3)))
    row = TASK_NUMBERS["enhancement"]
    loss[row], hits[row], tokens[row] = [14.0, 28.0, 42.0], [7.0, 0.0, 3.5], 7.0
    report = tally_report(tally)
    assert report["loss/all"] == report["loss/enhancement"] == pytest.approx(4.0)
    assert report["loss/enhancement/level_3"] == pytest.approx(6.0)
    assert report["accuracy/enhancement/level_1"] == pytest.approx(1.0)
    assert not any("tts" in tag for tag in report)


def test_a_checkpoint_of_another_codec_or_vocabulary_is_refused_by_name():
    config = load_config(CONFIGS / "quickstart.py", RunConfig)
    one = describe(config, {"codec": "one", "weights_sha256": "1" * 64})
    check_same(Path("run/7"), one, one)
    other = describe(config, {"codec": "other", "weights_sha256": "2" * 64})
    with pytest.raises(ValueError, match="run/7: this checkpoint's codec is .*'one'.*the run's is .*'other'"):
        check_same(Path("run/7"), one, other)
    moved = {**one, "vocabulary": {**one["vocabulary"], "phone": [0, 305]}}
    with pytest.raises(ValueError, match="checkpoint's vocabulary is .*phone.* the run's is .*phone"):
        check_same(Path("run/7"), one, moved)


def test_a_resumed_run_counts_on_from_the_frames_that_its_checkpoint_had_seen():
    names = [f"dataset{number}" for number in range(10007)]
    seen, resumed = (HoursSeen(names, FrameClock(16000, 320), make_mesh(MeshConfig(), jax.devices()[:1])) for _ in "ab")
    seen.frames = np.arange(len(names), dtype=np.float64)
    resumed.start_from(seen.by_dataset())
    np.testing.assert_array_equal(resumed.frames, seen.frames)
