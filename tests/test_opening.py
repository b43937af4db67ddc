"""Which reader reads what a user names."""

from data_pipelines.corpora.opening import FORMATS, open_corpus
from tests.corpus_files import cut, kaldi, lines, read_all, recording, refused, row, sound, table


def test_a_format_is_named_or_told_by_what_lies_at_a_path(tmp_path):
    sound(tmp_path / "plain" / "one.wav")
    sound(tmp_path / "kaldi" / "one.wav")
    sound(tmp_path / "kaldi" / "two.wav")
    kaldi(tmp_path / "kaldi")
    sound(tmp_path / "lhotse" / "one.wav", channels=2)
    lines(tmp_path / "lhotse" / "x_recordings.jsonl", recording("one.wav"))
    lines(
        tmp_path / "lhotse" / "x_supervisions.jsonl", {"id": "s", "recording_id": "r1", "start": 0, "duration": 0.0625}
    )
    made = {
        "folder": [tmp_path / "plain", lines(tmp_path / "plain" / "list.jsonl", row(audio="one.wav"))],
        "kaldi": [tmp_path / "kaldi"],
        "captions": [
            table(tmp_path / "c.csv", {"path": "plain/one.wav", "caption": "Noise."}),
            lines(tmp_path / "c.jsonl", {"audio": "plain/one.wav", "text": "Noise."}),
            lines(tmp_path / "c.json", "[", '{"path": "plain/one.wav", "caption": "Noise."}', "]"),
        ],
        "manifest": [
            tmp_path / "lhotse",
            lines(tmp_path / "lhotse" / "cuts.jsonl", cut(start=0, duration=0.0625)),
            lines(tmp_path / "nemo.json", {"audio_filepath": "plain/one.wav", "duration": 0.0625}),
        ],
    }
    for name, places in made.items():
        for place in places:
            told, named = open_corpus(str(place)), open_corpus(f"{name}:{place}")
            assert told == named or (told.place, [*told.entries]) == (named.place, [*named.entries])
            assert all(clip.audio is not None for clip in read_all(told).values())
    lines(tmp_path / "kaldi" / "manifest.jsonl", row(audio="one.wav"))
    assert [entry.id for entry in open_corpus(str(tmp_path / "kaldi")).entries] == ["b"]


def test_an_unknown_format_and_a_path_that_does_not_exist_are_refused_with_the_nearest_names(tmp_path):
    with refused(f"got the format 'caption', wanted one of {', '.join(FORMATS)}; did you mean 'captions'?"):
        open_corpus(f"caption:{tmp_path}")
    with refused("got a path that does not exist, wanted a folder, a file or FORMAT:PLACE"):
        open_corpus(str(tmp_path / "gone"))
    with refused("got no place, wanted kaldi:PLACE"):
        open_corpus("kaldi:")
    with refused("one.mp3: got a file of unknown format"):
        open_corpus(str(lines(tmp_path / "one.mp3", "")))
