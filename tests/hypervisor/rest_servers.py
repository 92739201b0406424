"""API servers that follow the published documents, for hypervisors that need /dev/kvm to run.

Cloud Hypervisor: vmm/src/api/openapi/cloud-hypervisor.yaml (0.3.0). Firecracker:
src/firecracker/swagger/firecracker.yaml (1.17). The resources, bodies, statuses and states are the
documents'; there is no guest behind them.
"""

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class RefusalError(Exception):
    def __init__(self, status: int, body: bytes):
        self.status, self.body = status, body


class Model:
    """What answers requests: ``resources`` maps (method, path) to a method of the model."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.slow: threading.Event | None = None

    def answer(self, method: str, path: str, body: Any) -> Any:
        raise NotImplementedError


class CloudHypervisorModel(Model):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config: dict[str, Any] | None = config
        self.state = "Created"

    def answer(self, method: str, path: str, body: Any) -> Any:
        self.asked.append(path.removeprefix("/api/v1/"))
        allowed = {  # state before, state after
            "/api/v1/vm.boot": (("Created", "Shutdown"), "Running"),
            "/api/v1/vm.pause": (("Running",), "Paused"),
            "/api/v1/vm.resume": (("Paused",), "Running"),
            "/api/v1/vm.shutdown": (("Running", "Paused"), "Shutdown"),
            "/api/v1/vm.reboot": (("Running",), "Running"),
            "/api/v1/vm.power-button": (("Running",), "Running"),
        }
        if path == "/api/v1/vm.restore" and method == "PUT":
            return self.restore(body)
        if self.config is None:
            raise RefusalError(404, b'["Error from API","The VM is not created"]')
        match method, path:
            case "GET", "/api/v1/vm.info":
                return {"config": self.config, "state": self.state}
            case "PUT", "/api/v1/vm.delete":
                self.config, self.state = None, "Created"
            case "PUT", "/api/v1/vm.snapshot":
                self.snapshot(Path(body["destination_url"].removeprefix("file://")))
            case "PUT", _ if path in allowed:
                before, after = allowed[path]
                if self.state not in before:
                    raise RefusalError(405, f'["Invalid transition","{self.state}"]'.encode())
                self.state = after
            case _:
                raise RefusalError(404, b"")
        return None

    def snapshot(self, directory: Path) -> None:
        if self.state != "Paused":
            raise RefusalError(405, b'["The VM is not paused"]')
        (directory / "config.json").write_text(json.dumps(self.config))
        (directory / "state.json").write_text("{}")
        (directory / "memory-ranges").write_bytes(b"memory")

    def restore(self, body: Any) -> None:
        if self.config is not None:
            raise RefusalError(404, b'["The VM is already created"]')
        source = Path(body["source_url"].removeprefix("file://"))
        self.config = json.loads((source / "config.json").read_text())
        self.state = "Paused"


class FirecrackerModel(Model):
    def __init__(self, config: dict[str, Any], identity: str = "anonymous-instance"):
        super().__init__()
        self.config, self.identity = config, identity
        self.state = "Not started"

    def answer(self, method: str, path: str, body: Any) -> Any:
        self.asked.append(f"{method} {path}")
        match method, path, body:
            case "GET", "/", _:
                return {
                    "app_name": "Firecracker",
                    "id": self.identity,
                    "state": self.state,
                    "vmm_version": "1.17.0",
                }
            case "GET", "/vm/config", _:
                return self.config
            case "PUT", "/actions", {"action_type": "InstanceStart"}:
                self.expect("Not started")
                self.state = "Running"
            case "PUT", "/actions", {"action_type": "SendCtrlAltDel"}:
                self.expect("Running")
            case "PATCH", "/vm", {"state": "Paused"}:
                self.expect("Running")
                self.state = "Paused"
            case "PATCH", "/vm", {"state": "Resumed"}:
                self.expect("Paused")
                self.state = "Running"
            case "PUT", "/snapshot/create", {"snapshot_path": state, "mem_file_path": memory}:
                self.expect("Paused")
                Path(state).write_bytes(b"state")
                Path(memory).write_bytes(b"memory")
            case (
                "PUT",
                "/snapshot/load",
                {"snapshot_path": state, "mem_backend": {"backend_path": _}, "resume_vm": True},
            ):
                self.expect("Not started")
                assert Path(state).read_bytes() == b"state"
                self.state = "Running"
            case _:
                self.refuse("no such request")
        return None

    def expect(self, state: str) -> None:
        if self.state != state:
            self.refuse(f"The requested operation is not supported in state {self.state}")

    @staticmethod
    def refuse(message: str) -> None:
        raise RefusalError(400, json.dumps({"fault_message": message}).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        model = self.server.model
        if model.slow is not None:
            model.slow.wait(60)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            value = model.answer(self.command, self.path, json.loads(content or b"null"))
        except RefusalError as refusal:
            self.reply(refusal.status, refusal.body)
            return
        if value is None:
            self.reply(204, b"")
        else:
            self.reply(200, json.dumps(value).encode())

    do_PUT = do_PATCH = do_GET  # noqa: N815 (http.server's names)

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = False
    request_queue_size = 16

    def __init__(self, path: str, model: Model):
        self.model = model
        super().__init__(path, _Handler)


@contextlib.contextmanager
def serving(model: Model, path: Path) -> Iterator[None]:
    with _Server(str(path), model) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink()
