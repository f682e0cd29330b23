"""The virtual board's second door: a server that speaks PYNQ.remote's protocol, for stock pynq 4.0.0 on this machine.

    python tests/fpga/remote_board.py KERNEL.so     serves 127.0.0.1:7967: PYNQ_REMOTE_DEVICES=127.0.0.1

Runs where pynq is installed, whose package holds the protocol's messages. KERNEL.so is what
`edgemtl.fpga.simulation.library()` gives; with `--twins LINEAR.so ATTENTION.so`, of `twin_libraries()`, it is that of
`library(twins=True)`. Two files are the virtual board's own: writing "stuck" to /virtual/fault
injects a fault, and /virtual/written holds how many bytes the host has written.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pynq.remote import (
    buffer_pb2,
    buffer_pb2_grpc,
    mmio_pb2,
    mmio_pb2_grpc,
    remote_device_pb2,
    remote_device_pb2_grpc,
)

sys.path.insert(0, str(Path(__file__).parents[1]))

import virtual_files

from edgemtl.errors import BoardError
from edgemtl.fpga import board as boards
from edgemtl.fpga import registers
from edgemtl.fpga.board import Facts
from edgemtl.fpga.simulation import CSimKernel, TwinKernel
from edgemtl.fpga.virtual import CMA_BYTES, VirtualBoard

ADDRESS, PORT = "127.0.0.1", 7967
FIRMWARE = "/sys/class/fpga_manager/fpga0/firmware"  # writing a name there loads the bitstream
FAULT, WRITTEN = "/virtual/fault", "/virtual/written"
# The processing system's clocks as they stand after boot: 1.5 GHz from the I/O PLL, divided by 5 to 300 MHz.
CLOCKS = {
    0xFF5E0020: 45 << 8,
    0xFF5E0030: 45 << 8,
    0xFD1A002C: 64 << 8 | 1 << 16,
    0xFF5E00C0: 1 << 24 | 1 << 16 | 5 << 8,
}


class Files(remote_device_pb2_grpc.RemoteDeviceServicer):  # type: ignore[misc]
    """The board's files that pynq reads and writes."""

    def __init__(self, board: VirtualBoard, facts: Facts) -> None:
        self._board = board
        self._held = {
            "/proc/device-tree/chosen/pynq_board": f"{facts.title}\0".encode(),
            "/proc/version": b"Linux version 6.12 aarch64 (virtual board)",
            "/sys/class/fpga_manager/fpga0/state": b"operating",
            "/sys/class/fpga_manager/fpga0/flags": b"0",
        }

    def existsfile(self, request: Any, context: Any) -> Any:
        return remote_device_pb2.ExistsFileResponse(exists=request.file_path in self._held)

    def readfile(self, request: Any, context: Any) -> Iterator[Any]:
        self._held[WRITTEN] = str(self._board.written).encode()
        if request.file_path not in self._held:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no file {request.file_path}")
        yield remote_device_pb2.ReadFileResponse(data=self._held[request.file_path])

    def writefile(self, requests: Iterator[Any], context: Any) -> Any:
        written: dict[str, bytes] = {}
        for request in requests:
            written[request.file_path] = written.get(request.file_path, b"") + request.data
        self._held |= written
        if FIRMWARE in written:
            self._board.reset()
        if written.get(FAULT) == b"stuck":
            self._board.faults.add("stuck")
        return remote_device_pb2.WriteFileResponse()

    def set_bitstream_attrs(self, request: Any, context: Any) -> Any:
        return remote_device_pb2.SetBitstreamAttrsResponse(status=True)

    def set_pl_clk(self, request: Any, context: Any) -> Any:
        return remote_device_pb2.SetPlClkResponse(status=True)

    def shutdown(self, request: Any, context: Any) -> Any:
        return remote_device_pb2.ShutdownResponse(status=True)


class Registers(mmio_pb2_grpc.MmioServicer):  # type: ignore[misc]
    """The kernel's registers, and the processing system's that pynq sets when it loads a design."""

    def __init__(self, board: VirtualBoard, facts: Facts) -> None:
        self._board, self._base = board, facts.registers.base
        self._bases, self._others = list[int](), dict(CLOCKS)

    def get_mmio(self, request: Any, context: Any) -> Any:
        self._bases.append(request.base_addr)
        return mmio_pb2.GetMmioResponse(status=True, mmio_id=str(len(self._bases) - 1))

    def read(self, request: Any, context: Any) -> Any:
        at = self._bases[int(request.mmio_id)] + request.offset
        try:
            halves = [self._read(at + 4 * i) for i in range(max(1, request.length // 4))]
        except BoardError as error:
            return mmio_pb2.ReadResponse(status=False, msg=str(error))
        return mmio_pb2.ReadResponse(status=True, data=sum(v << 32 * i for i, v in enumerate(halves)))

    def write(self, request: Any, context: Any) -> Any:
        at = self._bases[int(request.mmio_id)] + request.offset
        try:
            for i, (value,) in enumerate(struct.iter_unpack("<I", request.data)):
                self._write(at + 4 * i, value)
        except BoardError as error:
            return mmio_pb2.WriteResponse(status=False, msg=str(error))
        return mmio_pb2.WriteResponse(status=True)

    def _read(self, at: int) -> int:
        inside = 0 <= at - self._base < registers.SPAN
        return self._board.read(at - self._base) if inside else self._others.get(at, 0)

    def _write(self, at: int, value: int) -> None:
        if 0 <= at - self._base < registers.SPAN:
            self._board.write(at - self._base, value)
        else:
            self._others[at] = value


class Buffers(buffer_pb2_grpc.RemoteBufferServicer):  # type: ignore[misc]
    """Contiguous memory. What the network brings lies in the host's copy until pynq asks for a flush."""

    def __init__(self, board: VirtualBoard) -> None:
        self._board, self._held, self._count = board, dict[str, Any](), 0

    def allocate(self, request: Any, context: Any) -> Any:
        try:
            buffer = self._board.allocate((request.size,), np.uint8)
        except BoardError as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        self._count += 1
        self._held[str(self._count)] = buffer
        return buffer_pb2.AllocateResponse(buffer_id=str(self._count))

    def write(self, requests: Iterator[Any], context: Any) -> Any:
        at = 0
        for request in requests:
            part = np.frombuffer(request.data, np.uint8)
            self._held[request.buffer_id][at : at + part.size] = part
            at += part.size
        return buffer_pb2.BufferWriteResponse()

    def read(self, request: Any, context: Any) -> Iterator[Any]:
        data, step = self._held[request.buffer_id].tobytes(), 2 << 20
        for at in range(0, len(data), step):
            yield buffer_pb2.BufferReadResponse(data=data[at : at + step])

    def flush(self, request: Any, context: Any) -> Any:
        self._held[request.buffer_id].flush()
        return buffer_pb2.FlushResponse()

    def invalidate(self, request: Any, context: Any) -> Any:
        self._held[request.buffer_id].invalidate()
        return buffer_pb2.InvalidateResponse()

    def freebuffer(self, request: Any, context: Any) -> Any:
        self._held.pop(request.buffer_id).freebuffer()
        return buffer_pb2.FreeBufferResponse()

    def physical_address(self, request: Any, context: Any) -> Any:
        return buffer_pb2.AddressResponse(address=self._held[request.buffer_id].device_address)

    def virtual_address(self, request: Any, context: Any) -> Any:
        return self.physical_address(request, context)

    def cacheable(self, request: Any, context: Any) -> Any:
        return buffer_pb2.CacheableResponse(cacheable=True)


def serve(board: VirtualBoard, facts: Facts) -> Any:
    """Start the server; gives it, to be stopped with `stop(None)`. Raises BoardError where the port is taken."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    remote_device_pb2_grpc.add_RemoteDeviceServicer_to_server(Files(board, facts), server)
    mmio_pb2_grpc.add_MmioServicer_to_server(Registers(board, facts), server)
    buffer_pb2_grpc.add_RemoteBufferServicer_to_server(Buffers(board), server)
    try:
        server.add_insecure_port(f"{ADDRESS}:{PORT}")
    except RuntimeError:
        raise BoardError(f"port {PORT} is taken: stop the other virtual board") from None
    server.start()
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a virtual board to pynq on this machine.")
    parser.add_argument("kernel", type=Path, help="the compiled C simulation")
    parser.add_argument("--twins", type=Path, nargs=2, help="the Verilated linear and attention unit")
    parser.add_argument("--files", type=Path, help="write edgemtl.bit, .hwh and .json for pynq to this folder")
    parser.add_argument("--cma", type=int, default=CMA_BYTES, help="bytes of contiguous memory")
    parser.add_argument("--board", default=boards.DEFAULT, help="which board it looks like")
    given = parser.parse_args()
    try:
        facts = boards.find(given.board)
        kernel = TwinKernel(given.kernel, tuple(given.twins)) if given.twins else CSimKernel(given.kernel)
        server = serve(VirtualBoard(kernel, cma_bytes=given.cma), facts)
    except BoardError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if given.files:
        virtual_files.write(given.files, facts)
    print(f"a virtual {facts.title} on {ADDRESS}:{PORT}", flush=True)
    with suppress(KeyboardInterrupt):
        server.wait_for_termination()


if __name__ == "__main__":
    main()
