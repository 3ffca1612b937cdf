"""Releases: version, tag, changelog and labels agree; workflows are lists of make targets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conntrack_monitor import VERSION, command
from support.terminal import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
CHANGES = "# Changelog\n\n## Unreleased\n\n- New: this.\n  And more.\n\n## 0.9.0, 2026-01-02\n\n- Old.\n"
DAY = "## 1.2.3, 2026-11-28\n"


class Checkout:
    """A repository with all that a release is read from, and a docker and a gh that write down what they are told."""

    def __init__(self, root: Path) -> None:
        self.root, self.said = root / "checkout", root / "said"
        (self.root / "scripts").mkdir(parents=True)
        for name in ("Makefile", "scripts/release.py", "scripts/build_pyz.py"):
            shutil.copy(ROOT / name, self.root / name)
        self.put("conntrack_monitor.py", 'A = 1\nVERSION = "1.2.3"\nB = 2\n')
        self.put("Dockerfile", "FROM x\nARG VERSION=1.2.3\nARG REVISION=\n")
        self.put("CHANGELOG.md", CHANGES.replace("## Unreleased\n", DAY))
        for name in ("arch/PKGBUILD", "openwrt/Makefile", "kubernetes/daemonset.yaml"):
            (self.root / "contrib" / name).parent.mkdir(parents=True)
            self.put(f"contrib/{name}", (ROOT / "contrib" / name).read_text().replace(VERSION, "1.2.3"))
        (root / "bin").mkdir()
        for name in ("docker", "gh"):
            stub = root / "bin" / name
            stub.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.said}\n[ "$1" = buildx ] || cat >>{self.said}\n')
            stub.chmod(0o755)
        who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a"}
        plain = {"GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_GLOBAL": "/dev/null"}
        dates = {"GIT_AUTHOR_DATE": "2026-11-28T01:02:03Z", "GIT_COMMITTER_DATE": "2026-11-28T01:02:03Z"}
        self.environ = (
            {"PATH": f"{root}/bin:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"} | who | plain | dates
        )
        self.git("init", "-q")
        self.git("add", "-A")
        self.git("commit", "-qm", "x")

    def put(self, name: str, text: str) -> None:
        (self.root / name).write_text(text, encoding="utf-8")

    def text(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def git(self, *words: str) -> str:
        return subprocess.check_output(["git", *words], cwd=self.root, env=self.environ, text=True).strip()

    def make(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", "-s", *words]
        everything = self.environ | environ
        return subprocess.run(command, cwd=self.root, env=everything, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


# --- what agrees ------------------------------------------------------------------------------------------------------


def test_a_release_agrees_and_its_notes_are_the_newest_section(checkout: Checkout) -> None:
    checkout.git("tag", "-a", "v1.2.3", "-m", "x")
    said = checkout.make("release-check")
    assert (said.returncode, said.stdout) == (0, "version, tag, changelog, image and recipes agree: 1.2.3\n"), (
        said.stderr
    )
    assert checkout.make("release-notes").stdout == "- New: this.\n  And more.\n"
    checkout.put("CHANGELOG.md", checkout.text("CHANGELOG.md").replace(DAY, f"## Unreleased\n\n{DAY}"))
    assert checkout.make("release-check").returncode == 0  # an empty section for what comes next
    assert checkout.make("release-notes").stdout == "- New: this.\n  And more.\n"


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("conntrack_monitor.py", "1.2.3", "1.2.4", "the tag is v1.2.3, not v1.2.4"),
        ("conntrack_monitor.py", "1.2.3", "1.2.4", 'CHANGELOG.md begins with "1.2.3, 2026-11-28", not with "1.2.4,'),
        ("Dockerfile", "1.2.3", "1.2.4", "Dockerfile has not version 1.2.3; try: make release-set VERSION=1.2.3"),
        ("contrib/arch/PKGBUILD", "1.2.3", "1.2.2", "contrib/arch/PKGBUILD has not version 1.2.3"),
        ("contrib/openwrt/Makefile", "1.2.3", "1.2.2", "contrib/openwrt/Makefile has not version 1.2.3"),
        (
            "contrib/kubernetes/daemonset.yaml",
            "1.2.3",
            "1.2.2",
            "contrib/kubernetes/daemonset.yaml has not version 1.2.3",
        ),
        ("CHANGELOG.md", DAY, "## Unreleased\n", 'CHANGELOG.md begins with "Unreleased"'),
        ("CHANGELOG.md", DAY, "## 1.2.3\n", 'CHANGELOG.md begins with "1.2.3"'),
        ("CHANGELOG.md", "- New: this.\n  And more.\n", "", 'CHANGELOG.md says nothing under "1.2.3, 2026-11-28"'),
        ("Dockerfile", "ARG VERSION", "ARG OTHER", "Dockerfile has no line like"),
    ],
)
def test_what_does_not_agree_is_said(checkout: Checkout, name: str, old: str, new: str, says: str) -> None:
    checkout.git("tag", "v1.2.3")
    checkout.put(name, checkout.text(name).replace(old, new))
    said = checkout.make("release-check")
    assert said.returncode != 0
    assert says in said.stderr


def test_a_commit_without_a_tag_is_no_release(checkout: Checkout) -> None:
    checkout.git("tag", "vendored")
    assert 'this commit has no tag; try: git tag -a v1.2.3 -m "Version 1.2.3"' in checkout.make("release-check").stderr


def test_one_command_sets_the_version_everywhere(checkout: Checkout) -> None:
    checkout.put("CHANGELOG.md", CHANGES)
    assert checkout.make("release-set", "VERSION=2.0.0").returncode == 0
    assert checkout.text("conntrack_monitor.py") == 'A = 1\nVERSION = "2.0.0"\nB = 2\n'
    assert checkout.text("Dockerfile") == "FROM x\nARG VERSION=2.0.0\nARG REVISION=\n"
    dated = re.sub(r"\d{4}-\d\d-\d\d(?=\n\n- New)", "DAY", checkout.text("CHANGELOG.md"))
    assert dated == CHANGES.replace("## Unreleased\n", "## Unreleased\n\n## 2.0.0, DAY\n")
    checkout.git("tag", "v2.0.0")
    assert checkout.make("release-check").returncode == 0
    wrong = checkout.make("release-set", "VERSION=2.0")
    assert (wrong.returncode, '"2.0" is no version' in wrong.stderr) == (2, True)


# --- what is published ------------------------------------------------------------------------------------------------


def test_labels_are_filled_from_version_and_commit(checkout: Checkout) -> None:
    commit = checkout.git("rev-parse", "HEAD")
    words = "--build-arg VERSION=1.2.3 --build-arg REVISION={} --build-arg CREATED=2026-11-28T01:02:03Z"
    assert checkout.make("image").returncode == 0
    assert words.format(commit) in checkout.said.read_text()
    checkout.put("Dockerfile", checkout.text("Dockerfile") + "# changed\n")
    assert checkout.make("image").returncode == 0
    assert words.format(f"{commit}-dirty") in checkout.said.read_text()


def test_an_image_for_both_machines_goes_with_sbom_and_provenance(checkout: Checkout) -> None:
    checkout.git("tag", "v1.2.3")
    assert checkout.make("image-publish").returncode == 0
    said = checkout.said.read_text()
    for words in ("--platform linux/amd64,linux/arm64", "--sbom=true", "--provenance=mode=max", "--push"):
        assert words in said
    assert re.findall(r"-t \S+/conntrack-monitor:(\S+)", said) == ["1.2.3", "latest"]


def test_the_password_goes_by_standard_input(checkout: Checkout) -> None:
    done = checkout.make("image-login", REGISTRY_USER="me", REGISTRY_PASSWORD="secret")
    assert (done.returncode, done.stdout) == (0, "")
    command, password = checkout.said.read_text().splitlines()
    assert re.fullmatch(r"docker login --username me --password-stdin [a-z.]+", command)
    assert password == "secret"


def test_the_release_has_its_notes_and_files(checkout: Checkout) -> None:
    checkout.git("tag", "v1.2.3")
    done = checkout.make("release-publish")
    assert done.returncode == 0, done.stderr
    command, *notes = checkout.said.read_text().splitlines()
    assert command.startswith("gh release create v1.2.3 --verify-tag --title 1.2.3 --notes-file - dist/")
    assert notes == ["- New: this.", "  And more."]


@pytest.mark.parametrize("target", ["image-publish", "release-publish"])
def test_nothing_is_published_that_does_not_agree(checkout: Checkout, target: str) -> None:
    assert "this commit has no tag" in checkout.make(target).stderr
    assert not checkout.said.exists()


# --- the workflows ----------------------------------------------------------------------------------------------------


def lines(file: Path) -> list[str]:
    """Without comments. A workflow is written so that each step's `run` and `uses` is one line."""
    return [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]


def values(file: Path, key: str) -> list[str]:
    return [found[1] for line in lines(file) if (found := re.fullmatch(rf"\s*(?:- )?{key}:\s*(.*)", line))]


def test_there_are_workflows() -> None:
    assert [file.name for file in WORKFLOWS] == ["release.yml", "test.yml"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_runs_make_targets_and_nothing_else(file: Path) -> None:
    ran = values(file, "run")
    assert ran
    assert [word for word in ran if not (word.startswith("make ") and word[len("make ") :] in TARGETS)] == []
    text = "\n".join(lines(file))
    assert len(re.findall(r"\brun\b", text)) == len(ran)  # none hidden in another way of writing it
    assert not re.search(r"\b(shell|container|services|entrypoint|args)\b", text)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_pinned_by_version_and_come_from_two_hands(file: Path) -> None:
    used = values(file, "uses")
    assert used
    assert len(re.findall(r"\buses\b", "\n".join(lines(file)))) == len(used)
    assert [word for word in used if not re.fullmatch(r"(actions|docker)/[a-z-]+@v\d+\.\d+\.\d+", word)] == []


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_the_pythons_begin_where_pyproject_does_and_have_no_gap(file: Path) -> None:
    (listed,) = values(file, "python")
    pythons = [int(minor) for minor in re.findall(r'"3\.(\d+)"', listed)]
    oldest = re.search(r'^requires-python = ">=3\.(\d+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert oldest
    assert pythons == list(range(int(oldest[1]), 14 + 1))


def test_only_a_tag_publishes_and_only_after_tests() -> None:
    tests, release = (ROOT / ".github/workflows" / name for name in ("test.yml", "release.yml"))
    publishing = ["image-login", "image-publish", "release-publish"]
    assert not {f"make {target}" for target in publishing} & set(values(tests, "run"))
    assert "write" not in " ".join(lines(tests))
    assert values(release, "tags") == ['["v*"]']
    assert values(release, "branches") == []
    assert values(release, "needs") == ["test"]
    order = [word.removeprefix("make ") for word in values(release, "run")]
    assert order == ["check", "quick", "release-check", "release-files", *publishing]


# --- recipes ----------------------------------------------------------------------------------------------------------

DAEMONSET = (ROOT / "contrib/kubernetes/daemonset.yaml").read_text(encoding="utf-8")


def test_the_recipes_have_the_program_s_version() -> None:
    for name, before in (
        ("arch/PKGBUILD", "pkgver="),
        ("openwrt/Makefile", "PKG_VERSION:="),
        ("kubernetes/daemonset.yaml", "monitor:"),
    ):
        assert f"{before}{VERSION}\n" in (ROOT / "contrib" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["arch/PKGBUILD", "openwrt/Makefile", "kubernetes/daemonset.yaml"])
def test_what_is_untested_says_so(name: str) -> None:
    file = ROOT / "contrib" / name
    assert file.read_text(encoding="utf-8").startswith("# Untested")
    assert "untested" in (file.parent / "README.md").read_text(encoding="utf-8")


def test_the_daemonset_has_the_node_s_network_and_one_right() -> None:
    said = dict(re.findall(r"^\s+(?:- )?(\w+): ([^#\n]*?)(?: #.*)?$", DAEMONSET, re.M))
    assert (said["add"], said["drop"]) == ('["NET_ADMIN"]', '["ALL"]')
    assert (said["hostNetwork"], said["readOnlyRootFilesystem"]) == ("true", "true")
    assert (said["allowPrivilegeEscalation"], said["privileged"]) == ("false", "false")
    assert "\t" not in DAEMONSET


def test_the_daemonset_s_options_are_the_program_s() -> None:
    listed = re.search(r"^\s+args: \[(.*)\]$", DAEMONSET, re.M)
    assert listed
    parsed = command.make_context("x", re.findall(r'"([^"]*)"', listed[1])).params
    assert parsed["headless"] is True
    assert str(parsed["metrics"]) == "/metrics/conntrack.prom"


def test_arch_s_package_holds_what_the_program_prints(pyz: Path, tmp_path: Path) -> None:
    source = tmp_path / "conntrack-monitor"
    (source / "dist").mkdir(parents=True)
    shutil.copy(pyz, source / "dist/conntrack-monitor.pyz")
    shutil.copy(ROOT / "LICENSE", source)
    shutil.copytree(ROOT / "contrib", source / "contrib")
    environ = {
        "PATH": os.environ["PATH"],
        "srcdir": str(tmp_path),
        "pkgdir": str(tmp_path / "to"),
        "HOME": str(tmp_path),
    }
    words = 'set -eu -o pipefail; . "$0"; package'
    subprocess.run(["bash", "-c", words, str(ROOT / "contrib/arch/PKGBUILD")], env=environ, check=True)
    usr = tmp_path / "to/usr"
    assert "ExecStart=/usr/bin/conntrack-monitor " in (usr / "lib/systemd/system/conntrack-monitor.service").read_text()
    assert (usr / "share/man/man8/conntrack-monitor.8").read_text().startswith(".")
    for name in ("bash-completion/completions/conntrack-monitor", "zsh/site-functions/_conntrack-monitor"):
        assert "conntrack-monitor" in (usr / "share" / name).read_text()
