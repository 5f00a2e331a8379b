"""Gets the broker's jars from Maven Central once per user, by Maven or by the jgo package.

The folder in the user's cache is complete or absent: it is filled aside, checked, marked with
every file's size and moved into place, so that an interrupted download is never run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from routekeel.infra.local.errors import StackError
from routekeel.infra.local.files import from_os_error

KAFKA_VERSION = "4.1.1"
LOG4J_VERSION = "2.24.3"
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}",
    f"org.apache.logging.log4j:log4j-core:{LOG4J_VERSION}",
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}",
)
REQUIRED = frozenset({f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-tools-{KAFKA_VERSION}.jar"})
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
MARKER = "complete.json"
DOWNLOAD_TIMEOUT_S = 300.0
REQUEST_TIMEOUT_S = 30
PARALLEL_DOWNLOADS = 8

Say = Callable[[str], None]
Resolver = Callable[[Path, Path], None]


def cache_root() -> Path:
    """XDG_CACHE_HOME/routekeel, else ~/.cache/routekeel."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "routekeel"


def jars_folder() -> Path:
    """Where the jars of this Kafka version are kept."""
    return cache_root() / f"kafka-{KAFKA_VERSION}"


def is_complete(folder: Path) -> bool:
    """Whether the marker is there, names the broker's own jars, and every file has the size it names."""
    try:
        sizes: dict[str, int] = json.loads((folder / MARKER).read_text("utf-8"))
        return sizes.keys() >= REQUIRED and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def ensure_jars(say: Say = lambda _: None, resolvers: tuple[Resolver, ...] | None = None) -> Path:
    """The folder with the jars, downloaded if need be. Raises StackError.

    Args:
        say: Told what is being done, in words.
        resolvers: Ways to fill a folder, tried in order; Maven where present, then jgo.
    """
    folder = jars_folder()
    if is_complete(folder):
        return folder
    failures: list[str] = []
    for resolve in resolvers if resolvers is not None else _resolvers():
        try:
            with _staging(folder.parent) as stage:
                say(f"downloading Kafka {KAFKA_VERSION} by {_name_of(resolve)}, about 43 MB, once")
                jars = stage / "jars"
                jars.mkdir()
                resolve(jars, stage)
                _seal(jars)
                _publish(jars, folder)
                return folder
        except _ResolveError as error:
            failures.append(str(error))
        except OSError as error:
            raise from_os_error(error, folder.parent) from error
    raise StackError(
        "Kafka's jars could not be downloaded: " + "; ".join(failures or ["no way to do it"]),
        f"Check the network, or copy {folder} from a machine that has it, and start again.",
    )


class _ResolveError(Exception):
    """One way of resolving failed; the next may work."""


def _resolvers() -> tuple[Resolver, ...]:
    return (by_maven, by_jgo) if shutil.which("mvn") else (by_jgo,)


def _name_of(resolve: Resolver) -> str:
    return str(getattr(resolve, "__name__", "resolver")).removeprefix("by_")


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    root.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=root, prefix=".staging-"))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def pom() -> str:
    """The smallest project whose runtime closure is the broker's."""
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, artifact, version in (text.split(":") for text in COORDINATES)
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>routekeel</groupId>"
        "<artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{dependencies}</dependencies></project>\n"
    )


def by_maven(jars: Path, stage: Path) -> None:
    """Fill the folder by the machine's own Maven, with its settings, mirrors and proxies."""
    (stage / "pom.xml").write_text(pom(), "utf-8")
    command = ["mvn", "-B", "-q", "-f", str(stage / "pom.xml"), COPY_GOAL]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _ResolveError(f"Maven: {error}") from error
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        reason = said[0].strip() if said else f"exit code {done.returncode}"
        raise _ResolveError(f"Maven: {reason}")


def by_jgo(jars: Path, stage: Path) -> None:
    """Fill the folder by jgo's resolver, which needs neither Maven nor Java.

    `raw` keeps log4j's managed versions away from Kafka's own dependencies: without it
    kafka-clients would come out at another version than the broker's.
    """
    try:
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise _ResolveError("jgo: the package is not installed") from error
    try:
        resolver = PythonResolver()
        context = MavenContext(
            resolver=resolver, repo_cache=stage / "repository", timeout=REQUEST_TIMEOUT_S
        )
        wanted = [context.create_dependency(text) for text in COORDINATES]
        for dependency in wanted:
            dependency.raw = True
        inputs, transitive = resolver.resolve(wanted)
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            found = list(pool.map(lambda d: d.artifact.resolve(), [*inputs, *transitive]))
        for path in found:
            shutil.copy2(path, jars / path.name)
    except Exception as error:
        raise _ResolveError(f"jgo: {error}") from error


def _seal(jars: Path) -> None:
    """Check every archive's sums and write the marker."""
    sizes: dict[str, int] = {}
    for path in sorted(jars.glob("*.jar")):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            raise _ResolveError(f"{path.name} is damaged") from error
        if damaged:
            raise _ResolveError(f"{path.name} is damaged at {damaged}")
        sizes[path.name] = path.stat().st_size
    if missing := sorted(REQUIRED - sizes.keys()):
        raise _ResolveError(f"{missing} missing from what was downloaded")
    (jars / MARKER).write_text(json.dumps(sizes, indent=1) + "\n", "utf-8")


def _publish(jars: Path, folder: Path) -> None:
    """Move the sealed folder into place; another process may have been first."""
    try:
        jars.rename(folder)
    except OSError:
        if is_complete(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        jars.rename(folder)
