"""The units: what they say is what the server understands, and systemd takes them."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from penstock.config import ServerConfig, setting_fields
from penstock.frontend.listeners import SIDES

UNITS = Path(__file__).parents[3] / "server" / "deploy" / "systemd"
SERVICE = (UNITS / "penstock.service").read_text()


def values(key: str) -> list[str]:
    lines = (line.partition("=") for line in SERVICE.splitlines())
    return [value for name, _, value in lines if name == key]


@pytest.mark.parametrize("side", SIDES)
def test_sockets_have_the_names_and_ports_of_the_server(side: str) -> None:
    unit = configparser.ConfigParser()
    unit.read(UNITS / f"penstock-{side}.socket")
    defaults = ServerConfig(model_repository=(Path("m"),))
    assert unit["Socket"]["FileDescriptorName"] == side
    assert unit["Socket"]["Service"] == "penstock.service"
    port = getattr(defaults, f"{side}_port")
    assert unit["Socket"]["ListenStream"] == f"{defaults.host}:{port}"
    (names,) = values("Sockets")
    assert f"penstock-{side}.socket" in names.split()


def test_settings_of_the_service_exist() -> None:
    known = {field.variable for field in setting_fields()}
    given = {each.partition("=")[0] for each in values("Environment")}
    assert {each for each in given if each.startswith("PENSTOCK_")} <= known
    assert "PENSTOCK_SHUTDOWN_GRACE_SECS" in given


def test_service_is_told_and_stopped_as_the_server_expects() -> None:
    assert values("Type") == ["notify"]
    assert values("NotifyAccess") == ["all"]
    assert values("ExecReload") == ["/bin/kill -USR2 $MAINPID"]
    variables = dict(each.split("=", 1) for each in values("Environment"))
    names = ("SHUTDOWN_GRACE", "EXIT_TIMEOUT")
    takes_s = sum(float(variables[f"PENSTOCK_{name}_SECS"]) for name in names)
    assert float(variables["PENSTOCK_SHUTDOWN_GRACE_SECS"]) > 0  # for those that a reload finds
    assert float(values("TimeoutStopSec")[0]) > takes_s


@pytest.mark.parametrize("key", ["PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy"])
def test_nothing_hides_gpus(key: str) -> None:
    assert values(key) == []


def test_devices_of_gpus_are_made_by_who_may_and_may_be_missing() -> None:
    (before,) = values("ExecStartPre")
    assert before.startswith("-+/usr/bin/nvidia-modprobe ")
    assert values("NoNewPrivileges") == ["yes"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/penstock/bin/penstock", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    units = sorted(str(each) for each in tmp_path.iterdir())
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    found = [line for line in done.stderr.splitlines() if "penstock" in line]
    assert (done.returncode, found) == (0, [])
