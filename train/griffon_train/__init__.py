"""Model and training loop over frozen shard sets.

If transformers is already imported, importing this package registers the saved models with its Auto classes and
pipelines. Otherwise nothing heavy is imported, which keeps the commands fast; `import griffon_train.model` always
registers them.
"""

import sys
from contextlib import suppress

if "transformers" in sys.modules:
    with suppress(ImportError):  # without torch or with an old transformers only the model is unavailable
        import griffon_train.model  # noqa: F401
