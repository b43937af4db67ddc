"""History that is spoilt while training: of the target's audio alone, for later frames alone."""

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_plan import MIXTURE, SHARES, make_rows
from tests.tiny import MODEL, random_batch
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.sequence import HIDDEN, SPOILT_RUN
from uniaudio_jax.tasks import TASK_NUMBERS


def test_the_stated_share_of_the_targets_audio_is_spoilt_in_runs():
    shares = {"tts": 0.6, "text_to_music": 0.2}
    rows = make_rows(MIXTURE, SHARES, history_dropout=shares)
    plain = make_rows(MIXTURE, SHARES)
    hidden, others, counted = Counter(), Counter(), Counter()
    names = list(TASK_NUMBERS)
    for number in range(600):
        row, whole = rows[number], plain[number]
        for name, field in row._asdict().items():
            if name != "text_slots":
                np.testing.assert_array_equal(field, getattr(whole, name))
        is_spoilt = row.text_slots <= HIDDEN
        np.testing.assert_array_equal(row.text_slots[~is_spoilt], whole.text_slots[~is_spoilt])
        counts = (whole.loss_weights > 0) & np.isin(whole.tokens[whole.loss_frames, 0], rows.vocabulary.span("audio"))
        audio, tasks = whole.loss_frames[counts], [names[number] for number in whole.task[counts]]
        assert set(np.flatnonzero(is_spoilt)) <= set(audio)
        of_others = HIDDEN - 1 - row.text_slots[row.text_slots < HIDDEN]
        assert set(of_others) <= set(audio)
        hidden.update(task for at, task in zip(audio, tasks, strict=True) if row.text_slots[at] == HIDDEN)
        others.update(task for at, task in zip(audio, tasks, strict=True) if row.text_slots[at] < HIDDEN)
        counted.update(tasks)
        assert np.count_nonzero(np.diff(is_spoilt[audio].astype(int))) <= 2 + 2 * len(audio) / SPOILT_RUN
    assert counted.keys() == MIXTURE.keys()
    for task in MIXTURE:
        for spoilt in (hidden, others):
            assert spoilt[task] / counted[task] == pytest.approx(shares.get(task, 0) / 2, abs=0.05)
    again = make_rows(MIXTURE, SHARES, history_dropout=shares)
    np.testing.assert_array_equal(rows[7].text_slots, again[7].text_slots)


def test_a_hidden_frame_is_still_predicted_and_what_it_holds_changes_no_later_one():
    definition = ModelDefinition(replace(MODEL, layout=replace(MODEL.layout, frame_vectors="summed")))
    params = definition.init(jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, random_batch(rows=1))
    at = 5
    hidden = batch._replace(text_slots=batch.text_slots.at[0, at].set(HIDDEN))
    other = hidden._replace(tokens=hidden.tokens.at[0, at].set(200))
    logits, changed = definition.logits(params, hidden), definition.logits(params, other)
    np.testing.assert_array_equal(np.delete(logits[0], at, 0), np.delete(changed[0], at, 0))
    seen = batch._replace(text_slots=batch.text_slots.at[0, at].set(-1))
    assert np.abs(definition.logits(params, seen)[0, at + 1] - logits[0, at + 1]).max() > 1e-4
    np.testing.assert_array_equal(definition.logits(params, seen)[0, at, 0], logits[0, at, 0])


def test_another_frame_is_seen_in_the_place_of_a_spoilt_one():
    definition = ModelDefinition(MODEL)
    params = definition.init(jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, random_batch(rows=1))
    batch = batch._replace(text_slots=jnp.full_like(batch.text_slots, -1))
    at, other = 5, 3
    spoilt = batch._replace(text_slots=batch.text_slots.at[0, at].set(HIDDEN - 1 - other))
    changed = batch._replace(tokens=batch.tokens.at[0, at].set(batch.tokens[0, other]))
    logits, wanted = definition.logits(params, spoilt), definition.logits(params, changed)
    np.testing.assert_allclose(np.delete(logits[0], at, 0), np.delete(wanted[0], at, 0), rtol=1e-5, atol=1e-6)
