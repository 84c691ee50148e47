"""Model and training loop over frozen shard sets.

If transformers is already imported, importing this package registers the saved models with its Auto classes and
pipelines. Otherwise nothing heavy is imported, which keeps the commands fast; `import griffon_train.model` always
registers them. `griffon_train.Predictor` is imported when it is first used.
"""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from griffon_train.evaluation.predictor import Predictor

__all__ = ["Predictor"]

if "transformers" in sys.modules:
    with suppress(ImportError):  # without torch or with an old transformers only the model is unavailable
        import griffon_train.model  # noqa: F401


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class that needs torch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from griffon_train.evaluation.predictor import Predictor

    return Predictor
