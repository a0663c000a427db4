"""The API's description as a page, from its OpenAPI: no script, and nothing from anywhere else.

api_page(app.openapi())
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from multimodal.pages import render

_REFERENCE = "#/components/schemas/"


def api_page(description: Mapping[str, Any]) -> str:
    """The page as HTML text."""
    records = description.get("components", {}).get("schemas", {})
    return render(
        "api.html.jinja",
        title=f"{description['info']['title']}: the API",
        note="All addresses are relative to this one. Times are in milliseconds, sizes in bytes and pixels.",
        routes=list(_routes(description["paths"])),
        records=[_record(name, schema) for name, schema in records.items()],
    )


def _routes(paths: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path, methods in paths.items():
        for method, route in methods.items():
            yield {
                "method": method.upper(),
                "path": path,
                "text": route.get("description", route.get("summary", "")),
                "parameters": [_parameter(one) for one in route.get("parameters", [])],
                "body": ", ".join(
                    f"{kind} ({_type(one['schema'])})" for kind, one in route.get("requestBody", {}).get("content", {}).items()
                ),
                "replies": [_reply(status, reply) for status, reply in route["responses"].items()],
            }


def _parameter(given: Mapping[str, Any]) -> dict[str, str]:
    return {"name": given["name"], "where": given["in"], "type": _type(given["schema"]), "meaning": given.get("description", "")}


def _reply(status: str, reply: Mapping[str, Any]) -> dict[str, str]:
    types = [_type(one["schema"]) for one in reply.get("content", {}).values() if "schema" in one]
    return {"status": status, "type": ", ".join(filter(None, types)), "meaning": reply.get("description", "")}


def _record(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    fields = [
        {"name": field, "type": _type(one), "meaning": one.get("description", "")} for field, one in schema.get("properties", {}).items()
    ]
    return {"name": name, "text": schema.get("description", ""), "fields": fields}


def _type(schema: Mapping[str, Any]) -> str:
    """A type in words: "integer, 1 to 1000", "list of FoundHit"."""
    if "$ref" in schema:
        return schema["$ref"].removeprefix(_REFERENCE)
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"from text to {_type(schema['additionalProperties'])}"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to"), ("maxLength", "at most")) if key in schema]
    default = [f"by default {schema['default']}"] if schema.get("default") not in (None, "") else []
    return ", ".join([schema.get("type", "any"), *([" ".join(bounds)] if bounds else []), *default])
