"""The cache of compiled programs: reused by the next process, bounded, and nobody else's."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from cryptoml_assets.errors import UnsafeFolderError
from cryptoml_assets.models.compilation import private_folder, use_compilation_cache
from cryptoml_serving.contract import compilation
from cryptoml_serving.contract import private_folder as folders

REPOSITORY = Path(__file__).parents[3]
PROGRAM = """
import collections, json, pathlib, sys
import jax
from cryptoml_assets.models.compilation import use_compilation_cache
from cryptoml_serving.contract import compilation
compilation.CACHE_BYTES = int(sys.argv[2])
use_compilation_cache(pathlib.Path(sys.argv[1]))
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: seen.update([event.rpartition("/")[2]]))
def step(weights, row):
    return weights - 0.1 * jax.grad(lambda w: (row @ w) ** 2)(weights), None
train = jax.jit(lambda rows: jax.lax.scan(step, jax.numpy.ones(3), rows)[0])
weights = train(jax.random.normal(jax.random.key(1), (8, 3)))
counts = {"hits": seen["cache_hits"], "kept": seen["cache_misses"]}
print(json.dumps(counts | {"to": weights.tolist()}))
"""


def run(folder: Path, limit: int = compilation.CACHE_BYTES) -> dict[str, object]:
    """What a fresh process found in the cache, with every warning an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(folder), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**_without_jax(), "JAX_PLATFORMS": "cpu"},
    )
    # Neither Python nor XLA has anything to say, such as that code is of another processor.
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout))


def _without_jax() -> dict[str, str]:
    """The environment without the folder that the tests themselves compile into."""
    return {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}


def programs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-cache"))


def test_the_next_process_compiles_nothing_but_what_a_killed_one_left_half_written(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "home" / "jax-cache"
    first = run(folder)
    assert first["hits"] == 0
    assert first["kept"] == len(programs(folder)) > 2
    half = programs(folder)[0]
    half.write_bytes(half.read_bytes()[:100])
    half.with_name(half.name.replace("-cache", "-atime")).unlink()
    assert run(folder) == {"hits": first["kept"] - 1, "kept": 1, "to": first["to"]}  # type: ignore[operator]


def test_the_cache_keeps_to_its_size(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    size = sum(file.stat().st_size for file in programs(tmp_path / "whole"))
    # Sizes vary by a few bytes between compilations.
    limit = size - 1000
    assert run(tmp_path / "less", limit)["to"] == whole["to"]
    assert 0 < sum(file.stat().st_size for file in programs(tmp_path / "less")) <= limit


def test_the_folder_is_made_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_folder(tmp_path / "new" / "cache")
    finally:
        os.umask(before)
    assert {made.stat().st_mode & 0o777, made.parent.stat().st_mode & 0o777} == {0o700}
    assert private_folder(made) == made


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
@pytest.mark.parametrize("above", ["work", "work/home"])
def test_a_folder_below_one_that_others_can_write_to_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str, mode: int
) -> None:
    """They could rename what was checked and put their own in its place."""
    monkeypatch.setattr(folders, "is_ours_alone", lambda _: False)
    (tmp_path / "work" / "home").mkdir(parents=True)
    loose = tmp_path / above
    loose.chmod(mode)
    folder = tmp_path / "work" / "home" / "cache"
    told = rf"{loose} \(mode {mode:04o}.*could replace {folder}.*chmod go-w {loose}"
    with pytest.raises(UnsafeFolderError, match=told):
        private_folder(folder)
    assert not folder.exists()
    # As in /tmp: nobody renames there what is somebody else's.
    loose.chmod(mode | 0o1000)
    assert private_folder(folder) == folder


def test_a_folder_below_another_users_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = folders._made
    other = os.geteuid() + 1

    def given_away(folder: Path) -> os.stat_result:
        found = made(folder)
        if folder != tmp_path:
            return found
        return os.stat_result((*found[:4], other, *found[5:]))

    monkeypatch.setattr(folders, "_made", given_away)
    folder = tmp_path / "cache"
    told = rf"{tmp_path} \(mode .*, owner {other}\) belongs neither to root.*replace {folder}"
    with pytest.raises(UnsafeFolderError, match=f"{told}.*chown"):
        private_folder(folder)
    assert not folder.exists()


def test_a_groupis_ours_alone_where_it_has_our_name_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = pwd.getpwuid(os.geteuid()).pw_name

    def found(name: str, members: list[str]) -> bool:
        group = grp.struct_group((name, "x", 7, members))
        monkeypatch.setattr(grp, "getgrgid", {7: group}.__getitem__)
        return folders.is_ours_alone(7)

    assert found(ours, [])
    assert found(ours, [ours])
    assert not found(ours, [ours, "eve"])
    assert not found("research", [])
    # A pod's volumes have a group that no account is in.
    assert folders.is_ours_alone(8)


def test_a_link_on_the_way_is_followed_once(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    assert private_folder(tmp_path / "home" / "cache") == tmp_path / "disk" / "cache"


def test_a_folder_that_others_may_only_read_is_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert private_folder(tmp_path) == tmp_path


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_refused_with_the_way_out(
    tmp_path: Path, mode: int
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UnsafeFolderError, match=f"{folder}.*{mode:04o}.*chmod 700 {folder}"):
        private_folder(folder)


def test_the_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = private_folder(tmp_path / "cache")
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    monkeypatch.setattr(folders, "_check_above", lambda *_: None)
    with pytest.raises(UnsafeFolderError, match=rf"{folder} \(mode 0700.*another user.*HOME"):
        private_folder(folder)


def test_a_link_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(UnsafeFolderError, match=f"{tmp_path / name}.*remove it"):
            private_folder(tmp_path / name)


def test_the_folder_of_jaxs_own_variable_takes_its_place_and_must_be_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o770)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(shared))
    with pytest.raises(UnsafeFolderError, match="shared"):
        use_compilation_cache(tmp_path / "home" / "jax-cache")
    assert not (tmp_path / "home").exists()
