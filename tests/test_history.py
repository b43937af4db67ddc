"""History that is hidden while training: of the target's audio alone, from later frames alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_plan import MIXTURE, SHARES, make_rows
from tests.tiny import MODEL, random_batch
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.sequence import HIDDEN, HIDDEN_RUN


def test_the_stated_share_of_the_targets_audio_is_hidden_in_runs():
    share, rows = 0.3, make_rows(MIXTURE, SHARES, history_dropout=0.3)
    plain = make_rows(MIXTURE, SHARES)
    hidden = counted = 0
    for number in range(60):
        row, whole = rows[number], plain[number]
        for name, field in row._asdict().items():
            if name != "text_slots":
                np.testing.assert_array_equal(field, getattr(whole, name))
        is_hidden = row.text_slots == HIDDEN
        np.testing.assert_array_equal(row.text_slots[~is_hidden], whole.text_slots[~is_hidden])
        audio = whole.loss_frames[whole.loss_weights > 0]
        audio = audio[np.isin(whole.tokens[audio, 0], rows.vocabulary.span("audio"))]
        assert set(np.flatnonzero(is_hidden)) <= set(audio)
        hidden, counted = hidden + is_hidden.sum(), counted + len(audio)
        changes = np.count_nonzero(np.diff(is_hidden[audio].astype(int)))
        assert changes <= 2 + 2 * len(audio) / HIDDEN_RUN
    assert hidden / counted == pytest.approx(share, abs=0.05)
    np.testing.assert_array_equal(rows[7].text_slots, make_rows(MIXTURE, SHARES, history_dropout=0.3)[7].text_slots)


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
