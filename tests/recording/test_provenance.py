"""The commit of the code that ran."""

import subprocess
from pathlib import Path

from shoal.recording.provenance import git_commit


class TestGit:
    @staticmethod
    def git(folder, *words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)

    def test_commit_and_dirt(self, tmp_path):
        self.git(tmp_path, "init")
        assert git_commit(tmp_path) is None
        (tmp_path / "file.py").write_text("a")
        self.git(tmp_path, "add", ".")
        self.git(tmp_path, "commit", "-m", "first")
        (tmp_path / "untracked").write_text("")
        found = git_commit(tmp_path / "file.py")
        assert len(found["commit"]) == 40
        assert found["dirty"] is False
        (tmp_path / "file.py").write_text("b")
        assert git_commit(tmp_path) == {"commit": found["commit"], "dirty": True}

    def test_no_repository_and_no_git(self, tmp_path, monkeypatch):
        assert git_commit(tmp_path / "nowhere") is None
        monkeypatch.setenv("PATH", str(tmp_path))
        assert git_commit(Path(__file__)) is None
