"""Calls of a job's function in workers that this process did not start, possibly on other machines."""

import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Generic

from griffon_prep.render.settings import RENDER_VERSION
from griffon_shards.storage.errors import StorageError
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.worker_pool import Job, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCall(Generic[Job, Result]):
    """A picklable function that first compares its machine with the one that the build was started on.

    Attributes:
        function: a top-level function.
        versions: those of the packages that the bytes of a set depend on.
    """

    function: Callable[[Job], Result]
    versions: Mapping[str, str]

    def __call__(self, job: Job) -> Result:
        """Run the job.

        Raises:
            SettingsError: this machine has other versions.
            OSError, StorageError: the storage fails; the message names this machine.
            Exception: any exception raised by the job.
        """
        here = package_versions()
        differences = [
            f"{name} {here[name]}, expected {expected}"
            for name, expected in self.versions.items()
            if here[name] != expected
        ]
        if differences:
            raise SettingsError(
                f"the workers on {platform.node()} have {' and '.join(differences)} as on the machine of this command; "
                "install the same versions on all machines"
            )
        warnings.filterwarnings("ignore", module="PIL")  # about unused metadata, as in local workers
        try:
            return self.function(job)
        except OSError as error:
            if error.filename is not None:
                error.filename = f"{platform.node()}: {error.filename}"
            raise
        except StorageError as error:  # this machine may lack what others have, such as credentials
            raise StorageError(f"{platform.node()}: {error}") from None


def package_versions() -> dict[str, str]:
    """The versions that the bytes of a set depend on."""
    return {
        "griffon-pipeline": f"{version('griffon-pipeline')} (render version {RENDER_VERSION})",
        "pillow": version("pillow"),
    }
