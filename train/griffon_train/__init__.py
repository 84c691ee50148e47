"""Model and training loop over frozen shard sets.

Where transformers is in use already, its Auto classes and pipelines know saved models from here on. Otherwise nothing
heavy is imported, for the sake of the command lines; `import griffon_train.model` makes them known in any case.
"""

import sys
from contextlib import suppress

if "transformers" in sys.modules:
    with suppress(ImportError):  # without torch or with an old transformers there is no model, but all the rest
        import griffon_train.model  # noqa: F401
