"""The distributions: one import name, beside foreign folders of the same names, light when bare."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("faust", "numba", "clickhouse_connect", "chdb", "mlx", "torch", "pydantic", "typer")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, the wheel built from the sdist as an installer would."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_nothing_is_installed_outside_the_import_name(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"routekeel"}
    for part in ("operators/step.py", "schemas/published/telemetry.v1.avsc", "backends/tinymoe/checkpoint/config.json",
                 "infra/local/stack.py", "streams/demo/page.html", "py.typed"):  # fmt: skip
        assert f"routekeel/{part}" in names
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/streams/sdk/producer.py") for name in archive.getnames())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_imports_beside_foreign_folders_of_the_same_names(
    distributions: Path, kind: str, tmp_path: Path
) -> None:
    """Installed without dependencies into an empty environment; those come from ours by path."""
    (package,) = distributions.glob(kind)
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", str(package)]
                   if kind == "*.whl" else [python, "-m", "pip", "install", "--quiet", "--no-deps", str(package)],
                   check=True, capture_output=True)  # fmt: skip
    project = tmp_path / "project"
    for foreign in ("schemas", "backends", "operators"):
        (project / foreign).mkdir(parents=True)
        (project / foreign / "__init__.py").write_text("WHOSE = 'the user'\n")
    site = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    code = (
        "import sys, schemas, backends, operators; assert schemas.WHOSE == backends.WHOSE == 'the user'\n"
        f"sys.path.append({str(site)!r})\n"
        "from routekeel import Producer, read_telemetry\n"
        "import routekeel, routekeel.schemas.records\n"
        f"assert {str(environment)!r} in routekeel.__file__, routekeel.__file__\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]; assert not heavy, heavy\n"
    )
    subprocess.run([python, "-c", code], cwd=project, check=True)
