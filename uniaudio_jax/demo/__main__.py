"""A page to try a run's tasks with one's own words, recordings and tunes.

    python -m uniaudio_jax.demo --run RUN

serves it at http://127.0.0.1:7860 until Ctrl-C. Nothing leaves this machine. Another --host lets others in, without a
password.
"""

import os
import signal
import tempfile
from dataclasses import dataclass, field

from uniaudio_jax.checked import Checked
from uniaudio_jax.cli import main_guard, parse, use_compile_cache
from uniaudio_jax.demo.given import Limits
from uniaudio_jax.demo.page import build_page
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.run import load_run
from uniaudio_jax.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Checked):
    """What to serve, and to whom."""

    run: PlaceOption
    """Folder of a training."""
    host: str = "127.0.0.1"
    """The address to serve at; 0.0.0.0 is every one of this machine."""
    port: int = 7860
    """The port to serve at."""
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)


def serve(options: DemoOptions) -> None:
    """Serves the page until Ctrl-C or SIGTERM; files that were sent or made lie in a folder that goes then."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = load_run(options.run)
    with tempfile.TemporaryDirectory(prefix="uniaudio_demo_") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        page = build_page(run, options.limits, options.sampling)
        page.launch(
            server_name=options.host,
            server_port=options.port,
            max_file_size=f"{options.limits.megabytes}mb",
            share=False,
            run_history=False,
            mcp_server=False,
            ssr_mode=False,
            footer_links=[],
        )


def main() -> None:
    with main_guard("nothing was kept"):
        options = parse(DemoOptions, __doc__)
        use_compile_cache()
        serve(options)


if __name__ == "__main__":
    main()
