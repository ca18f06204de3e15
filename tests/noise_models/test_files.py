"""Files and folders that are whole or absent, whatever interrupts the writing."""

import contextlib
import errno
import os
import stat

import pytest

from axtrain.noise_models import files
from axtrain.noise_models.files import whole_file, whole_folder, write_whole


def write_folder(path, text):
    with whole_folder(path) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file.txt").write_text(text)


def text_of(path):
    return (path / "inner" / "file.txt").read_text()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[True, False], ids=["exchanged", "moved aside"])
def in_one_step(request, monkeypatch):
    """Where the system can exchange two folders, and where it cannot."""
    if not request.param:
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    return request.param


def test_folders_are_replaced_whole(tmp_path, in_one_step):
    write_folder(tmp_path / "out", "old")
    write_folder(tmp_path / "out", "new")
    assert text_of(tmp_path / "out") == "new" and names(tmp_path) == ["out"]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~files._mask()


def test_an_interruption_at_any_step_leaves_the_old_or_the_new(tmp_path, in_one_step, monkeypatch):
    """Ctrl-C before or after each call that changes the file system; then the same again works."""
    replace, chmod, rmtree = os.replace, os.chmod, files.shutil.rmtree
    for stop in range(12):
        count = iter(range(100))

        def interrupted(function, count=count, stop=stop):
            def call(*args, **kwargs):
                if next(count) == stop:
                    raise KeyboardInterrupt
                result = function(*args, **kwargs)
                if next(count) == stop:
                    raise KeyboardInterrupt
                return result

            return call

        write_folder(tmp_path / "out", "old")
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupted(replace))
            patch.setattr(os, "chmod", interrupted(chmod))
            patch.setattr(files.shutil, "rmtree", interrupted(rmtree))
            with contextlib.suppress(KeyboardInterrupt):
                write_folder(tmp_path / "out", "new")
        if in_one_step or (tmp_path / "out").exists():
            assert text_of(tmp_path / "out") in ("old", "new")
        write_folder(tmp_path / "out", "newest")
        assert text_of(tmp_path / "out") == "newest" and names(tmp_path) == ["out"], stop


def test_a_kill_between_the_two_moves_is_made_good(tmp_path, monkeypatch):
    """As after SIGKILL: the old folder lies aside, nothing in its place."""
    write_folder(tmp_path / "out", "old")
    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    replace, moved = os.replace, []

    class Killed(BaseException):
        pass

    def once(one, other):
        if moved:
            raise Killed
        moved.append(one)
        replace(one, other)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(Killed):
        write_folder(tmp_path / "out", "new")
    monkeypatch.setattr(os, "replace", replace)
    assert not (tmp_path / "out").exists()
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out"):
        assert text_of(tmp_path / "out") == "old"
        raise RuntimeError
    assert text_of(tmp_path / "out") == "old" and names(tmp_path) == ["out"]


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    (tmp_path / ".axtrain-dead").mkdir()
    (tmp_path / ".axtrain-dead" / "half").write_text("half")
    (tmp_path / ".axtrain-dead.json").write_text("half")
    (tmp_path / ".mine-axtrain").write_text("mine")
    with whole_folder(tmp_path / "slow") as living, whole_file(tmp_path / "slow.json") as file:
        (living / "half").write_text("half")
        write_whole(tmp_path / "quick.json", b"{}")
        assert (living / "half").exists() and file.exists()
    assert names(tmp_path) == [".mine-axtrain", "quick.json", "slow", "slow.json"]


def test_links_are_followed_and_impossible_places_refused_before_the_work(tmp_path):
    write_folder(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_folder(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and text_of(tmp_path / "real") == "new"
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_whole(tmp_path / "link.json", b"{}")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").read_bytes() == b"{}"
    long = tmp_path / ("n" * 250)
    write_folder(long, "new")
    write_whole(tmp_path / ("m" * 250 + ".json"), b"{}")
    assert text_of(long) == "new"
    for write in (whole_file, whole_folder):
        with pytest.raises(OSError, match="name too long.*nnn"), write(tmp_path / ("n" * 256)):
            pytest.fail("the work was done first")
    with pytest.raises(IsADirectoryError, match="choose another name.*real"), whole_file(tmp_path / "real"):
        pytest.fail("the work was done first")


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*result\.json'"),
        whole_file(tmp_path / "result.json"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []
