"""Packed rows of frames out of tokenised corpora."""

from dataclasses import dataclass, field

from uniaudio_jax.checked import Checked
from uniaudio_jax.config.pairs import TaskWeights
from uniaudio_jax.errors import require


@dataclass(frozen=True, kw_only=True)
class TokenizerPaths(Checked):
    """Files of the tokenizers, instead of what the packages and this repository carry."""

    semantic_encoder: str | None = None
    """Folder of a HuBERT model in the Hugging Face layout; without it, Whisper-tiny's encoder."""
    semantic_clusters: str | None = None
    """Clusters of the semantic encoder's vectors; needed beside semantic_encoder."""
    text_encoder: str | None = None
    """Folder of a T5 encoder; without it, MiniLM."""
    word_pieces: str | None = None
    """A sentencepiece model; without it, the shipped one of 1000 English pieces."""
    labels: str | None = None
    """A text file with the name of one sound event a line; without it, AudioSet's."""
    lexicon: str | None = None
    """A pronunciation lexicon, whose words are looked up before espeak is asked."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Checked):
    """Packed rows of frames out of tokenised corpora."""

    root: str
    """Folder that holds the tokenised corpora; may be in a bucket, gs://… or s3://…, whose shards are copied here."""
    tasks: TaskWeights
    """Weight of each task: its share of the rows' frames, up to a common factor."""
    row_frames: int
    """T, the frames of a row."""
    target_frames: int
    """N, the most target frames of a row."""
    rows: int
    """Rows in a global batch."""
    text_frames: int
    """The most text vectors in a row."""
    prompt_seconds: float = 3.0
    """Length of a speaker prompt."""
    condition_dropout: float = 0.0
    """Share of the examples, others in each epoch, that are trained on without their conditions, whose marks then
    stand with nothing between them: what `--sampling.guidance` needs, such as 0.1. Held-out losses keep them all."""
    history_dropout: TaskWeights = field(default_factory=dict)
    """Share of a task's frames of target audio that is spoilt for later ones while training, in runs of ten: hidden, or
    with other audio in its place; 0 by default. So a model learns to follow the conditions where its own past is wrong,
    for tasks whose conditions say what comes when. Held-out losses see all as it is."""
    hours_power: float = 0.0
    """α: a task's weight is multiplied by (its hours of audio)^α. 0 leaves the weights as they are, 1 follows the
    hours; the paper draws old tasks with 0.05 while it fine-tunes."""
    loss_weights: TaskWeights = field(default_factory=dict)
    """How much a counted frame of a task counts in the loss, for targets of few tokens beside long ones; 1 by
    default."""
    tokenizers: TokenizerPaths = field(default_factory=TokenizerPaths)
    """What generation turns texts, labels and notes into tokens with: the tokenizers that made the corpora."""
    seed: int = 0
    """Of the order of the examples, the choice of speaker prompts and the conditions that are dropped."""

    def __post_init__(self):
        super().__post_init__()
        require(
            "DataConfig.target_frames",
            0 < self.target_frames <= self.row_frames,
            f"{self.target_frames} target frames of {self.row_frames}",
            "1 to row_frames",
        )
        require(
            "DataConfig.tasks",
            bool(self.tasks) and all(w > 0 for w in self.tasks.values()),
            str(self.tasks),
            "a positive weight for at least one task",
        )
        require(
            "DataConfig.loss_weights",
            self.loss_weights.keys() <= self.tasks.keys() and all(w > 0 for w in self.loss_weights.values()),
            str(self.loss_weights),
            f"positive weights for some of {list(self.tasks)}",
        )
        require("DataConfig.rows", self.rows >= 1, str(self.rows), "at least 1")
        require("DataConfig.text_frames", self.text_frames >= 1, str(self.text_frames), "at least 1")
        require("DataConfig.hours_power", 0 <= self.hours_power <= 1, str(self.hours_power), "0 to 1")
        share = self.condition_dropout
        require("DataConfig.condition_dropout", 0 <= share < 1, str(share), "at least 0 and less than 1")
        require(
            "DataConfig.history_dropout",
            self.history_dropout.keys() <= self.tasks.keys() and all(0 <= s < 1 for s in self.history_dropout.values()),
            str(self.history_dropout),
            f"shares of at least 0 and less than 1 for some of {list(self.tasks)}",
        )
        require("DataConfig.prompt_seconds", self.prompt_seconds > 0, str(self.prompt_seconds), "more than 0")
