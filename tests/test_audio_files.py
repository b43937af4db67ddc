"""Laws of audio files: what a whole one holds is read, however it states its length; what one lacks is not made up."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audio_damage import SAMPLES, audio_file, cut, patched, piped_wav, streamed_flac, tone, with_noise
from uniaudio_jax.audio.files import AudioStream, read_audio

FORMS = {
    "wav": {},
    "rf64": {"format": "RF64", "subtype": "PCM_16"},
    "rifx": {"format": "WAV", "subtype": "PCM_16", "endian": "BIG"},
    "flac": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "aiff": {},
    "w64": {},
    "au": {},
    "caf": {},
    "mp3": {},
    "nist": {"format": "NIST", "subtype": "PCM_16"},
}
LOSSY = ("ogg", "opus", "mp3")
BYTES = 2 * SAMPLES


def refused(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


@pytest.mark.parametrize("suffix", FORMS)
def test_a_whole_file_is_read_from_a_path_and_from_its_bytes(suffix, tmp_path):
    path = audio_file(tmp_path / f"a.{suffix}", **FORMS[suffix])
    samples = read_audio(path, 16000).samples
    np.testing.assert_array_equal(read_audio(path.read_bytes(), 16000).samples, samples)
    assert len(samples) == SAMPLES
    if suffix not in LOSSY:
        np.testing.assert_array_equal(samples, tone().astype(np.float32))


@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        ("wav", rf"got a truncated file with \d+ bytes of samples, wanted the {BYTES} "),
        ("rf64", rf"got a truncated file with \d+ bytes of samples, wanted the {BYTES} "),
        ("rifx", rf"got a truncated file with \d+ bytes of samples, wanted the {BYTES} "),
        ("aiff", rf"got a truncated file with \d+ bytes of samples, wanted the {BYTES + 8} "),
        ("w64", rf"got a truncated file with \d+ bytes of samples, wanted the {BYTES} "),
        ("au", rf"got a truncated file with \d+ bytes of samples, wanted the {BYTES} "),
        ("caf", "cannot be read as audio"),
        ("flac", rf"got \d+ of {SAMPLES} samples and then '.*lost sync"),
        ("mp3", rf"got \d+ of {SAMPLES} samples, wanted all"),
        ("nist", rf"got \d+ of {SAMPLES} samples, wanted all"),
        ("ogg", r"whose Ogg pages are whole up to byte \d+ of \d+, wanted all"),
        ("opus", r"whose Ogg pages are whole up to byte \d+ of \d+, wanted all"),
    ],
)
def test_a_file_that_was_cut_off_is_refused_with_what_is_left_of_it(suffix, said, tmp_path):
    path = cut(audio_file(tmp_path / f"a.{suffix}", **FORMS[suffix]))
    for source, where in ((path, re.escape(str(path))), (path.read_bytes(), "the stored file")):
        with pytest.raises(ValueError, match=f"^{where}: .*{said}"):
            read_audio(source, 16000)


def page_starts(path: Path) -> list[int]:
    return [match.start() for match in re.finditer(b"OggS", path.read_bytes())]


def test_an_ogg_file_that_was_cut_between_pages_is_refused(tmp_path):
    path = audio_file(tmp_path / "a.ogg")
    path.write_bytes(path.read_bytes()[: page_starts(path)[-2]])
    with pytest.raises(ValueError, match=r"\d+ bytes of Ogg whose last page \(sample \d+\) does not end the stream"):
        read_audio(path, 16000)


def test_an_ogg_file_that_lacks_a_page_is_refused_with_the_samples_that_it_has(tmp_path):
    path = audio_file(tmp_path / "a.ogg")
    start, stop = page_starts(path)[5:7]
    data = path.read_bytes()
    path.write_bytes(data[:start] + data[stop:])
    with pytest.raises(ValueError, match=rf"got \d+ of {SAMPLES} samples, wanted all"):
        read_audio(path, 16000)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus", "mp3"])
def test_a_file_with_noise_in_its_middle_is_refused(suffix, tmp_path):
    path = with_noise(audio_file(tmp_path / f"a.{suffix}", **FORMS[suffix]))
    with refused(f"{path}: got "):
        read_audio(path, 16000)


def test_a_byte_changed_in_an_ogg_file_is_noticed(tmp_path):
    path = audio_file(tmp_path / "a.ogg")
    middle = path.stat().st_size // 2
    patched(path, middle, bytes([path.read_bytes()[middle] ^ 8]))
    with refused("got a truncated or damaged file"):
        read_audio(path, 16000)


@pytest.mark.parametrize(
    ("stated", "whole"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0, 0),
        (0, 36),
        (0, 0xFFFFFFFF),
        (0x7FFFFFFF, 0x7FFFFFFF),
        (0x7FFFF000, 0x7FFFF024),
        (0x80000000, 0x80000024),
        (0xFFFFFFDB, 0xFFFFFFFF),
    ],
)
def test_a_wav_file_from_a_pipe_is_whole(stated, whole, tmp_path):
    path = piped_wav(tmp_path / "a.wav", stated, whole)
    written = path.read_bytes()
    for source in (path, written):
        assert AudioStream(source, 16000).samples == SAMPLES
        np.testing.assert_array_equal(read_audio(source, 16000).samples, tone().astype(np.float32))
    part = read_audio(path, 16000, start_seconds=2.5, seconds=0.5).samples
    np.testing.assert_array_equal(part, tone()[40_000:48_000].astype(np.float32))
    assert path.read_bytes() == written


def test_an_empty_wav_file_with_something_after_its_samples_is_empty(tmp_path):
    path = audio_file(tmp_path / "a.wav", samples=0)
    data = path.read_bytes() + b"LIST\x04\0\0\0INFO"
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    with refused("got 0 samples"):
        read_audio(path, 16000)


@pytest.mark.parametrize(
    ("suffix", "place", "stated"), [("au", 8, b"\xff" * 4), ("w64", 96, (2**63 - 1).to_bytes(8, "little"))]
)
def test_other_files_from_a_pipe_are_whole(suffix, place, stated, tmp_path):
    path = patched(audio_file(tmp_path / f"a.{suffix}"), place, stated)
    np.testing.assert_array_equal(read_audio(path, 16000).samples, tone().astype(np.float32))


def test_an_aiff_file_from_a_pipe_is_whole_and_one_whose_parts_disagree_is_refused(tmp_path):
    path = audio_file(tmp_path / "a.aiff")
    frames, length = (path.read_bytes().find(name) for name in (b"COMM", b"SSND"))
    patched(path, frames + 10, (SAMPLES + 7).to_bytes(4, "big"))
    with refused(f"{path}: got {SAMPLES} of {SAMPLES + 7} samples"):
        read_audio(path, 16000)
    patched(patched(path, frames + 10, b"\x3f\x80\0\0"), length + 4, b"\x7f\0\0\x08")
    np.testing.assert_array_equal(read_audio(path, 16000).samples, tone().astype(np.float32))


def test_a_flac_file_without_a_length_holds_what_the_ordinary_one_does(tmp_path):
    path = streamed_flac(tmp_path / "a.flac")
    assert soundfile.info(path).frames > 2**62
    assert AudioStream(path, 16000).samples == SAMPLES
    np.testing.assert_array_equal(read_audio(path, 16000).samples, tone().astype(np.float32))
    part = read_audio(path, 16000, start_seconds=7.5).samples
    np.testing.assert_array_equal(part, tone()[120_000:].astype(np.float32))
    with pytest.raises(ValueError, match=r"got \d+ of an unknown number of samples and then '.*lost sync"):
        AudioStream(cut(path), 16000)


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_at_another_rate_every_sample_comes_out_of_the_file(rate, tmp_path):
    path = tmp_path / "a.flac"
    for samples in (1, 2, 7, 9973):
        soundfile.write(path, 0.5 * np.ones(samples), rate)
        stream = AudioStream(path, 16000)
        got = np.concatenate(list(stream.pieces(0.1)))
        assert len(got) == stream.samples == max(1, round(samples * 16000 / rate))
        assert np.count_nonzero(got) >= len(got) - 1
    soundfile.write(path, tone(9973), rate)
    with pytest.raises(ValueError, match=r"got \d+ of 9973 samples"):
        read_audio(cut(path), 16000)


def test_a_part_beside_the_damage_is_read_and_one_in_it_is_refused(tmp_path):
    path = with_noise(audio_file(tmp_path / "a.flac"))
    wanted = tone().astype(np.float32)
    for start in (0, 16_000, 112_000):
        part = read_audio(path, 16000, start_seconds=start / 16000, seconds=0.5).samples
        np.testing.assert_array_equal(part, wanted[start : start + 8000])
    with refused(f"of {SAMPLES} samples"):
        read_audio(path, 16000, start_seconds=4, seconds=0.5)


def test_what_is_no_file_is_told_by_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    for name, kind in (("fifo", "a pipe or device"), ("folder", "a folder"), ("link", "a link to no file")):
        with refused(f"{name}.wav: got {kind}, wanted an audio file"):
            read_audio(tmp_path / f"{name}.wav", 16000)


def test_a_name_that_is_too_long_and_one_with_half_a_surrogate_pair_are_no_file(tmp_path):
    for name in ("a" * 300, "\ud800", "a\0b"):
        with refused("got no file"):
            read_audio(tmp_path / name, 16000)
