"""The output folder of a running build: exclusive access, the plan on disk, and the work files for resuming."""

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import orjson

from griffon_prep.build.output import WORK_NAME, FolderOutput, ObjectOutput, Output
from griffon_prep.sources.annotation_hashes import AnnotationHashes
from griffon_prep.sources.mirror import default_work
from griffon_shards.index import INDEX_NAME
from griffon_shards.interop import ENERGON_FOLDER, HUGGING_FACE_NAME, WIDS_NAME
from griffon_shards.lock import LOCK_NAME, REJECTS_NAME, REPORT_NAME
from griffon_shards.storage import Location, ObjectPath, write_location
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import UNUSABLE, remove_temporaries, write_whole
from griffon_shards.support.folder_lock import lock_folder, wait_for_lock

_PLAN_NAME = "build.json"
_DELETE = {
    "s3": "aws s3 rm --recursive {}",
    "gs": "gcloud storage rm --recursive {}",
    "gc": "gcloud storage rm --recursive {}",
    "az": "azcopy remove --recursive URL",
    "ab": "azcopy remove --recursive URL",
}
_OURS = (REPORT_NAME, REJECTS_NAME, INDEX_NAME, WIDS_NAME, HUGGING_FACE_NAME, ENERGON_FOLDER)


class BuildFolder:
    """Use of a set's folder by one build, or by some of its parts at once; a context manager.

    Parts share the folder, and wait for each other at the start: until `prepared` is called, one has it for itself.
    A set at a URL has a folder on this machine for work, which its processes here share in the same way.

    Attributes:
        out: the set's folder or URL.
        output: where the set goes.
        work: the work folder on this machine.
    """

    def __init__(self, out: Location, *, shared: bool = False, work: Path | None = None) -> None:
        self.out = out
        self._shared = shared
        self.output = _output(out, work)
        self.work = self.output.stage / WORK_NAME
        self._begun: Location = out / WORK_NAME  # the plan and the number of parts, for all machines
        self._made_out = not self.output.stage.exists()
        self._elsewhere: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "BuildFolder":
        if isinstance(self.out, Path) and self.out.exists() and not self.out.is_dir():
            raise SettingsError(f"{self.out}: is a file; give --out a folder")
        if self.out.is_dir() and not self._is_set() and self._has_other_files():
            raise SettingsError(f"{self.out}: contains files but is not a shard set; give --out a new or empty folder")
        try:
            self._lock_work()
            if not self._shared:
                remove_temporaries(self.output.stage)
        except OSError as error:
            if error.errno not in UNUSABLE:
                raise
            if isinstance(self.out, ObjectPath) or not self.frozen:
                raise SettingsError(
                    f"{self.output.stage}: not writable ({error.strerror}); give {self._option} a writable folder"
                ) from None
            self._work_elsewhere()
        self.stamps = AnnotationHashes(self.work / "annotations.json")
        return self

    def _lock_work(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        writer = "another build" if self.parts() is None else "another build, or a part of this one,"
        self._lock = lock_folder(
            self.work / "lock",
            whose=f"{self.out}: {writer} is writing into it",
            instead=f"wait for it to finish or give another {self._option}",
            shared=self._shared,
        )
        if self._shared:
            self._scan_lock = wait_for_lock(self.work / "scan.lock", whose=f"{self.out}: another part is preparing")

    @property
    def _option(self) -> str:
        return "--work" if isinstance(self.out, ObjectPath) else "--out"

    def _is_set(self) -> bool:
        """Whether a build was begun or frozen in the folder."""
        if isinstance(self.out, ObjectPath):
            return (self._begun / _PLAN_NAME).exists() or self.frozen
        return self.work.exists() or self.frozen

    def _has_other_files(self) -> bool:
        """Whether the folder has files of others. Another part may be making the work folder just now."""
        if isinstance(self.out, ObjectPath):
            return not self.out.is_empty()
        return any(path.name != WORK_NAME for path in self.out.iterdir())

    def _work_elsewhere(self) -> None:
        """Work in a temporary folder, so that a read-only frozen set can still be compared with a build."""
        cached_hashes = self.work / "annotations.json"
        self._elsewhere = tempfile.TemporaryDirectory(prefix="griffon-build-")
        self.work = Path(self._elsewhere.name)
        with contextlib.suppress(OSError):
            shutil.copyfile(cached_hashes, self.work / "annotations.json")
        self._lock_work()

    def __exit__(self, *_: object) -> None:
        self.prepared()
        started = isinstance(self.out, ObjectPath) or (self.work / _PLAN_NAME).exists() or self.frozen
        if not started and not self._shared:  # leave no trace; a part leaves the lock that other parts hold
            shutil.rmtree(self.work, ignore_errors=True)
            if self._made_out and not any(self.output.stage.iterdir()):
                self.output.stage.rmdir()
        self._lock.close()
        if self._elsewhere is not None:
            self._elsewhere.cleanup()

    def prepared(self) -> None:
        """Let the next part prepare."""
        if self._shared:
            self._scan_lock.close()

    @property
    def frozen(self) -> bool:
        """Whether the folder holds a frozen set."""
        return (self.out / LOCK_NAME).exists()

    @property
    def read_only(self) -> bool:
        """Whether the folder holds a frozen set that cannot be written to."""
        return self._elsewhere is not None

    def plan(self) -> dict[str, Any] | None:
        """The plan of the unfinished build in the folder, or None."""
        try:
            plan: dict[str, Any] = orjson.loads((self._begun / _PLAN_NAME).read_bytes())
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError:
            raise DataError(
                f"{self._begun / _PLAN_NAME}: damaged, so the build cannot be resumed; {start_over(self.out)}"
            ) from None
        return plan

    def unfinished_other_than(self, plan: dict[str, Any]) -> bool:
        """Whether the folder holds an unfinished build with another plan, or one whose plan cannot be read."""
        try:
            return self.plan() not in (None, plan)
        except DataError:
            return True

    def begin(self, plan: dict[str, Any]) -> None:
        """Write the plan of the build. From here on, an interrupted build can be resumed.

        Raises:
            DataError: another machine has meanwhile begun another build at the URL.
        """
        location, data = self._begun / _PLAN_NAME, orjson.dumps(plan, option=orjson.OPT_SORT_KEYS)
        if not isinstance(location, ObjectPath):
            write_whole(location, data)
        elif not location.create(data):
            check_no_other_set(self, plan)

    def parts(self) -> int | None:
        """The number of parts that the first one was given, or None if no part is prepared."""
        try:
            return int((self._begun / "parts").read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def begin_parts(self, count: int) -> None:
        """Record the number of parts: what one of them has to do for all of them is done."""
        write_location(self._begun / "parts", str(count).encode())

    def clear(self) -> None:
        """Remove a set on disk and its work files. The lock goes first: a half-removed set must not look frozen."""
        assert isinstance(self.out, Path), "objects are never deleted"
        (self.out / LOCK_NAME).unlink(missing_ok=True)
        for name in _OURS:
            path = self.out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for folder in [path for path in self.out.iterdir() if path.is_dir() and path != self.work]:
            for shard in folder.glob(f"{folder.name}-[0-9]*.tar*"):
                shard.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
        for counts in self.work.glob("*.counts"):
            counts.unlink()
        self.clear_work()

    def clear_work(self) -> None:
        """Remove the work files except the cache of annotation hashes, and the counts that `--reuse` takes over."""
        if isinstance(self.output, ObjectOutput):
            self.output.clear_stage()
        for name in ("parts", "scan.lock", _PLAN_NAME):
            (self.work / name).unlink(missing_ok=True)
        for path in self.work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)


def _output(out: Location, work: Path | None) -> Output:
    if not isinstance(out, ObjectPath):
        return FolderOutput(root=out)
    name = hashlib.sha256(str(out).encode()).hexdigest()[:16]
    return ObjectOutput(root=out, stage=(work or default_work()).absolute() / name)


def start_over(out: Location) -> str:
    """How to start a build over, for messages."""
    if not isinstance(out, ObjectPath):
        return "start over with --overwrite"
    return f"start over by deleting {out} with your provider's tool, such as `{_DELETE[str(out)[:2]].format(out)}`"


def check_no_other_set(folder: BuildFolder, plan: dict[str, Any]) -> None:
    """Refuse to resume an unfinished build with another plan.

    Raises:
        DataError: the unfinished build was started with other settings or annotations.
    """
    unfinished = folder.plan()
    if unfinished is not None and unfinished != plan:
        raise DataError(
            f"{folder.out}: holds an unfinished build with other inputs ({differences(unfinished, plan)}); "
            f"rerun it with the original settings, give another --out, or {start_over(folder.out)}"
        )


def differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Describe the differences between two plans: settings by name, sources by tag."""
    changes = [
        "it was started with another version of griffon-prep, which renders some records differently"
        if name == "render_version"
        else f"--{name.replace('_', '-')} was {before['render'].get(name)!r} and is {value!r}"
        for name, value in after["render"].items()
        if before["render"].get(name) != value
    ]
    old = {source["tag"]: source for source in before["sources"]}
    new = {source["tag"]: source for source in after["sources"]}
    changes += [f"source {tag} was removed" for tag in old if tag not in new]
    changes += [f"source {tag} was added" for tag in new if tag not in old]
    for tag in new:
        changed = [name for name in new[tag] if tag in old and new[tag][name] != old[tag].get(name)]
        if changed:
            changes.append(f"source {tag}: {', '.join(changed)} changed")
    if not changes and list(old) != list(new):
        changes.append("the order of the sources changed")
    return "; ".join(changes)
