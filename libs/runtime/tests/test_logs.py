"""Logs never show what a user wrote."""

import subprocess
import sys

import msgspec

from reverie_runtime.logs import REDACTED, redact

PROGRAM = """
import logging, structlog
from reverie_runtime.logs import bind_job, configure_logs
from reverie_runtime.settings import LogSettings
configure_logs(LogSettings(format="{format}"), service="bakery")
log = structlog.get_logger("oven")
with bind_job("j1"):
    log.info("baked", negative_prompt="SECRET", job={{"params": "SECRET", "steps": 4}})
    logging.getLogger("elsewhere").warning("careful")
try:
    dough = "SECRET"
    1 / 0
except ZeroDivisionError:
    log.exception("burnt")
log.debug("too fine")
"""


def output(format_: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(format=format_)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr


def test_json_records_carry_the_service_and_the_job_and_nothing_private() -> None:
    text = output("json")
    assert "SECRET" not in text
    baked, careful, burnt = (msgspec.json.decode(line) for line in text.splitlines())
    assert baked["event"] == "baked"
    assert (baked["service"], baked["job_id"], baked["level"]) == ("bakery", "j1", "info")
    assert baked["job"] == {"params": REDACTED, "steps": 4}
    assert (careful["event"], careful["job_id"], careful["level"]) == ("careful", "j1", "warning")
    assert "job_id" not in burnt
    assert "ZeroDivisionError" in burnt["exception"]


def test_console_records_show_no_local_variables() -> None:
    text = output("console")
    assert "ZeroDivisionError" in text
    assert 'dough = "SECRET"' not in text.replace('    dough = "SECRET"\n    1 / 0', "")
    assert "negative_prompt=[redacted]" in text


def test_private_words_are_found_in_any_part_of_a_key_and_at_any_depth() -> None:
    event = {"userPrompt": "x", "list": [{"api_token": "x"}], "steps": 4}
    assert redact(None, "", event) == {"userPrompt": REDACTED, "list": [{"api_token": REDACTED}], "steps": 4}
