"""What pydantic finds wrong, in one sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.mistakes import first_mistake, mistakes, suggestion, unknown


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Disk(Strict):
    size_mib: int = Field(ge=16)


class Node(Strict):
    name: str = Field(min_length=1)
    role: Literal["web", "db"] = "web"
    disk: Disk | None = None
    addresses: tuple[str, ...] = Field(default=("a",), min_length=1)
    slow: bool = False
    settings: Mapping[str, Any] = Field(default={}, alias="with")


class Lab(Strict):
    nodes: tuple[Node, ...] = ()
    spares: Annotated[list[Node] | None, Field(description="x")] = None
    by_name: Mapping[str, Node] = {}

    @model_validator(mode="after")
    def _one_of_them(self) -> Lab:
        if len(self.nodes) > 2:
            raise ValueError("2 nodes at most")
        return self


def error(tables: Mapping[str, Any]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Lab.model_validate(tables)
    return caught.value


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"nods": ()}, "unknown key 'nods'; did you mean 'nodes'?"),
        ({"x": ()}, "unknown key 'x'; accepted: by_name, nodes, spares"),
        ({"nodes": [{"name": "a", "rule": "web"}]}, "nodes[0]: unknown key 'rule'; did you mean 'role'?"),
        ({"nodes": [{"name": "a", "disk": {"size": 1}}]}, "nodes[0].disk: unknown key 'size'; accepted: size_mib"),
        ({"nodes": [{"name": "a", "wth": {}}]}, "nodes[0]: unknown key 'wth'; did you mean 'with'?"),
        ({"spares": [{"name": "a", "nam": 1}]}, "spares[0]: unknown key 'nam'; did you mean 'name'?"),
        ({"by_name": {"a": {"name": "a", "nam": 1}}}, "by_name.a: unknown key 'nam'; did you mean 'name'?"),
        ({"nodes": [{}]}, "nodes[0]: missing key 'name'"),
        ({"nodes": [{"name": ""}]}, "nodes[0].name: must not be empty (got '')"),
        ({"nodes": [{"name": 1}]}, "nodes[0].name: must be a string (got 1)"),
        ({"nodes": [{"name": "a", "disk": {"size_mib": 1}}]}, "nodes[0].disk.size_mib: must be at least 16 (got 1)"),
        (
            {"nodes": [{"name": "a", "disk": {"size_mib": True}}]},
            "nodes[0].disk.size_mib: must be at least 16 (got true)",
        ),
        ({"nodes": [{"name": "a", "disk": {"size_mib": "big"}}]}, "nodes[0].disk.size_mib: must be a whole number"),
        ({"nodes": [{"name": "a", "role": "wbe"}]}, "nodes[0].role: must be 'web' or 'db' (got 'wbe')"),
        (
            {"nodes": [{"name": "a", "role": "webb"}]},
            "nodes[0].role: must be 'web' or 'db' (got 'webb'; did you mean 'web'?)",
        ),
        ({"nodes": [{"name": "a", "slow": "perhaps"}]}, "nodes[0].slow: must be true or false (got 'perhaps')"),
        ({"nodes": [{"name": "a", "addresses": []}]}, "nodes[0].addresses: must have at least 1 entry (got [])"),
        ({"nodes": [{"name": each} for each in "abc"]}, "2 nodes at most"),
        ({"nodes": 3}, "nodes: must be a list (got 3)"),
    ],
)
def test_a_mistake_is_a_place_and_what_would_be_right(tables: Mapping[str, Any], expected: str) -> None:
    assert first_mistake(error(tables), Lab).startswith(expected)


def test_unknown_keys_come_before_the_keys_that_they_leave_missing() -> None:
    wrong = error({"nodes": [{"nme": "a"}]})
    assert mistakes(wrong, Lab) == ["nodes[0]: unknown key 'nme'; did you mean 'name'?", "nodes[0]: missing key 'name'"]
    assert first_mistake(wrong, Lab) == "nodes[0]: unknown key 'nme'; did you mean 'name'? (and 1 more)"


def test_a_place_begins_where_the_table_is_in_the_file() -> None:
    wrong = error({"x": 1})
    assert first_mistake(wrong, Lab, ("checks", "outage")).startswith("checks.outage: unknown key 'x'")


def test_two_names_of_nodes_are_not_a_typing_error() -> None:
    assert unknown("node", "web-9", ["lb-1"]) == "unknown node 'web-9'; accepted: lb-1"
    assert suggestion("x", []) == "accepted: none"
    assert suggestion("x", ["lb-1"], "known") == "known: lb-1"
