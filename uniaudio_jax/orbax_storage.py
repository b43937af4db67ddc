"""What Orbax must be told of the storage that checkpoints lie in.

It knows gs://. Its atomic steps and TensorStore's driver work on S3 as well, but Orbax names that driver for no address
(https://github.com/google/orbax/pull/2739): the functions that do so are replaced by ones that know both.
"""

import functools
import os
import posixpath
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

from uniaudio_jax.paths import Place

S3 = "s3://"


def storage_options(folder: Place) -> dict[str, Any]:
    """Options of a CheckpointManager for checkpoints in `folder`."""
    if not str(folder).startswith(S3):
        return {}
    _teach_s3()
    # A bucket has no renaming: a step counts once it holds the file that commits it, as Orbax does it on gs:// itself.
    return {"atomicity_options": ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)}


@functools.cache
def _teach_s3() -> None:
    """Lets Orbax give s3:// addresses to TensorStore."""
    of_google, is_google = gcs_utils.get_kvstore_for_gcs, tensorstore_utils._use_gcs_driver
    normal = tensorstore_utils._normalize_path

    def driver_of(place: str) -> dict[str, Any]:
        return _s3_driver(place) if place.startswith(S3) else of_google(place)

    def normal_address(place: str) -> str:
        return S3 + posixpath.normpath(place.removeprefix(S3)) if place.startswith(S3) else normal(place)

    gcs_utils.get_kvstore_for_gcs = driver_of
    tensorstore_utils._use_gcs_driver = lambda place: place.startswith(S3) or is_google(place)
    tensorstore_utils._normalize_path = normal_address


def _s3_driver(place: str) -> dict[str, Any]:
    """The key-value store of TensorStore; it does not read the endpoint that boto takes from the environment."""
    bucket, _, path = place.removeprefix(S3).partition("/")
    driver: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": path}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        driver |= {"endpoint": endpoint, "aws_region": region}
    return driver
