"""docs/hypervisors.md says what the classes can; VMCONNECT_WRITE_DOCS=1 writes it anew."""

import os
from pathlib import Path

import pytest

import vmconnect
from vmconnect.errors import CapabilityError
from vmconnect.hypervisor import Capability, Hypervisor, kinds
from vmconnect.hypervisor.base import capabilities_of
from vmconnect.hypervisor.machine import Machine
from vmconnect.hypervisor.table import capability_table

DOCUMENT = Path(vmconnect.__file__).parents[1] / "docs" / "hypervisors.md"
BEGIN, END = "<!-- capabilities -->\n", "<!-- /capabilities -->\n"


def test_the_document_has_the_table_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin
    assert end
    current = f"{before}{BEGIN}\n{capability_table()}\n\n{END}{after}"
    if os.environ.get("VMCONNECT_WRITE_DOCS"):
        DOCUMENT.write_text(current, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == current, "VMCONNECT_WRITE_DOCS=1 writes it"


def test_every_capability_is_a_method_or_a_field() -> None:
    for capability in Capability:
        is_method = hasattr(Hypervisor, capability.value)
        assert is_method != (capability.value in Machine.__slots__)
        assert any(capability in capabilities_of(kind) for kind in kinds())


def test_a_hypervisor_with_nothing_can_nothing() -> None:
    class Nothing(Hypervisor):
        name = "nothing"

    assert capabilities_of(Nothing) == frozenset()
    with pytest.raises(CapabilityError, match="these have: qemu, libvirt"):
        Nothing().drives(Machine("a", "a", "a"), vmconnect.Deadline(1))
