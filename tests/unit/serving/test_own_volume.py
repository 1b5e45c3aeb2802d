"""A pod's own volume (emptyDir), which Kubernetes makes writable for all, is nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryptoml_serving.contract import private_folder as folders

LINE = "812 790 259:1 {source} {target} rw,relatime - ext4 /dev/nvme0n1p1 rw"
#: Where the kubelet keeps it, when its folder is the file system's root and when it is not.
POD = "/var/lib/kubelet/pods/5d9e/volumes/kubernetes.io~empty-dir/data"
APART = "/pods/5d9e/volumes/kubernetes.io~empty-dir/data"
PURPOSE = folders.Purpose("it would be run", "SETTING")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A folder as the kubelet makes an emptyDir: open to all, without the sticky bit."""
    made = tmp_path / "data"
    made.mkdir()
    made.chmod(0o2777)
    return made


@pytest.mark.parametrize(
    ("sources", "private"),
    [
        ([POD], True),
        ([APART], True),
        (["/srv/shared"], False),
        (["/var/lib/kubelet/pods/5d9e/volumes/kubernetes.io~nfs/data"], False),
        ([], False),
        # What was mounted last is what is there.
        ([POD, "/srv/shared"], False),
        (["/srv/shared", POD], True),
    ],
)
def test_only_the_pods_own_volume_is_believed(
    volume: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: list[str],
    private: bool,
) -> None:
    told = tmp_path / "mountinfo"
    others = [LINE.format(source=POD, target=f"{volume}-b"), LINE.format(source="/", target="/")]
    lines = [*others, *(LINE.format(source=source, target=volume) for source in sources)]
    told.write_text("".join(f"{line}\n" for line in lines))
    real = folders.is_own_volume
    monkeypatch.setattr(folders, "is_own_volume", lambda folder: real(folder, told))
    if private:
        made = folders.private_folder(volume / "models", PURPOSE)
        assert (made, made.stat().st_mode & 0o777) == (volume / "models", 0o700)
        # Within it the rule is as everywhere.
        made.chmod(0o777)
        with pytest.raises(folders.UnsafeFolderError, match="writable by others"):
            folders.private_folder(made / "own", PURPOSE)
    else:
        with pytest.raises(folders.UnsafeFolderError, match="writable by others"):
            folders.private_folder(volume / "models", PURPOSE)


def test_without_a_list_of_mounts_nothing_is_believed(volume: Path) -> None:
    assert not folders.is_own_volume(volume, Path("/nonexistent"))


def test_the_kernels_own_list_is_read(volume: Path) -> None:
    assert Path("/proc/self/mountinfo").read_text().count(" / ") >= 1
    assert not folders.is_own_volume(volume)
    assert not folders.is_own_volume(Path("/"))
