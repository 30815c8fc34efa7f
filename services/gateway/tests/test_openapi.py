"""The OpenAPI document says what there is: every route, and only those."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import msgspec
import pytest

from reverie_gateway.openapi.__main__ import FILE, main
from reverie_gateway.openapi.document import encoded_document, openapi_document
from reverie_protocol.errors import ERROR_TRAITS, ErrorCode

ROOT = Path(__file__).parents[3]


def validator(name):
    document = openapi_document()
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    )


def test_the_file_in_docs_is_up_to_date(capsys):
    assert main(["--check", "--root", str(ROOT)]) == 0, capsys.readouterr().err


def test_a_file_that_differs_is_found(tmp_path, capsys):
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert "make generate" in capsys.readouterr().err
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    (tmp_path / FILE).write_text("{}")
    assert main(["--check", "--root", str(tmp_path)]) == 1


def test_every_reference_leads_somewhere_and_every_schema_is_sound():
    document = openapi_document()
    text = msgspec.json.encode(document).decode()
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert names == document["components"]["schemas"].keys()
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def test_error_answers_name_their_codes_under_the_right_status():
    for path in openapi_document()["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                for code in re.findall(r"`([a-z_]+)`", response["description"]):
                    if code in ErrorCode.__members__.values():
                        assert ERROR_TRAITS[ErrorCode(code)].status == int(status)


def test_request_schemas_take_what_the_gateway_takes():
    validator("GenerateRequest").validate({"prompt": "x", "seed": None, "unknown": 1})
    validator("JobRequest").validate({"jobType": "generate", "prompt": "x", "priority": "batch"})
    validator("JobRequest").validate({"jobType": "generate", "params": {"prompt": "x"}})
    for name, body in (
        ("GenerateRequest", {}),
        ("GenerateRequest", {"prompt": "x", "seed": -1}),
        ("JobRequest", {"jobType": "generate"}),
        ("JobRequest", {"jobType": "generate", "prompt": "x", "unknown": 1}),
    ):
        assert not validator(name).is_valid(body), body


@pytest.mark.asyncio(loop_scope="module")
async def test_it_describes_every_route_and_no_other(gateway):
    from reverie_gateway.app import Parts, build_app

    served = await gateway.http.get("/schema/openapi.json")
    assert served.content == encoded_document()
    app = build_app(Parts(**dict.fromkeys(Parts.__struct_fields__)))
    routes = {
        (method.lower(), re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path))
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    }
    described = {(method, path) for path, item in served.json()["paths"].items() for method in item}
    assert described == routes


@pytest.mark.asyncio(loop_scope="module")
async def test_real_answers_fit_their_schemas(gateway, worker):
    submitted = await gateway.http.post("/v1/jobs", json={"jobType": "generate", "prompt": "x"})
    validator("JobAccepted").validate(submitted.json())
    url = submitted.headers["location"]
    validator("JobView").validate((await gateway.http.get(url)).json())
    await worker.do_next()
    validator("JobView").validate((await gateway.http.get(url)).json())
    validator("JobPage").validate((await gateway.http.get("/v1/jobs")).json())
    validator("SystemStatus").validate((await gateway.http.get("/v1/system/status")).json())
    validator("Readiness").validate((await gateway.http.get("/ready")).json())
    validator("StorageReport").validate((await gateway.http.get("/storage/health")).json())
    for path in ("/v1/jobs/none", "/v1/jobs?limit=x"):
        validator("ErrorBody").validate((await gateway.http.get(path)).json())


def test_the_readme_lists_the_settings_as_they_are():
    from reverie_gateway.settings import Settings
    from reverie_runtime.settings import document_settings

    assert document_settings(Settings) in (Path(__file__).parents[1] / "README.md").read_text()
