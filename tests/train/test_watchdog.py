import time

from binlatent.train.watchdog import Watchdog


def test_a_late_step_is_said_once_and_a_pause_is_not(capsys):
    dog = Watchdog("prior", least_seconds=0.4)
    for step in range(8):
        dog.beat(step)
        time.sleep(0.01)
    dog.pause()
    time.sleep(0.8)
    assert capsys.readouterr().err == ""
    dog.beat(8)
    time.sleep(1.2)
    dog.close()
    said = capsys.readouterr().err
    assert said.count("warning: prior: step 8 has taken") == 1
    assert "usually take 0.01" in said
