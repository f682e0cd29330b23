"""hls/include/contract.h is what `make contract` writes."""

from __future__ import annotations

from hls_models import HLS

from edgemtl_compiler.fpga import header


def test_the_header_is_the_contract() -> None:
    assert (HLS / "include" / "contract.h").read_text() == header.text(), "type make contract"
