"""What the trials need of ``tests/servers``: servers, their clients, their signs of life."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "servers"))

import asgi_kinds
import wsgi_kinds
from client import Answer, Connection
from launch import Server, until
from proving_kinds import HOST, faults_of_ours, proving, told, vitals
from server_kind import Kind
from wire import Wire, head

__all__ = [
    "HOST",
    "Answer",
    "Connection",
    "Kind",
    "Server",
    "Wire",
    "asgi_kinds",
    "faults_of_ours",
    "head",
    "proving",
    "told",
    "until",
    "vitals",
    "wsgi_kinds",
]
