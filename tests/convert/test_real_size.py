"""Files of the official sizes: random weights in the release's layout, converted in a separate process."""

import json
import subprocess
import sys
import time

import pytest

from tests.convert.release import C64, CHURCHES, autoencoder_layout, denoiser_layout, random_state, save

MEASURE = """
import resource, sys, time
begin = time.perf_counter()
from binlatent.cli.main import main
main(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"measured {time.perf_counter() - begin:.1f} s {peak:.2f} GiB")
"""


@pytest.mark.slow
def test_the_official_sizes_convert_in_two_minutes_and_eight_gigabytes(tmp_path, capsys):
    pytest.importorskip("torch", reason="torch is not installed: no file to convert")
    save(tmp_path / "binaryae_ema_1000000.th", random_state(autoencoder_layout(C64)))
    save(tmp_path / "bld_ema_1000000.th", random_state(denoiser_layout(CHURCHES)))
    (tmp_path / "h.json").write_text(json.dumps(C64 | CHURCHES))
    files = [f"--autoencoder={tmp_path}/binaryae_ema_1000000.th", f"--denoiser={tmp_path}/bld_ema_1000000.th"]
    arguments = ["convert", *files, f"--hparams={tmp_path}/h.json", f"--workdir={tmp_path}/w"]
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with capsys.disabled():
        print("\n" + done.stdout)
    seconds, gibibytes = (float(x) for x in done.stdout.split("measured ")[1].split()[0:3:2])
    assert seconds < 120 and gibibytes < 8

    from binlatent.convert.torch_file import read_state

    begin = time.perf_counter()
    state = read_state(tmp_path / "bld_ema_1000000.th")
    assert sum(x.size for x in state.values()) > 170e6 and time.perf_counter() - begin < 60
