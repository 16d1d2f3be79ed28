"""Stands in for the HAProxy program that Ray Serve starts: ties it to its parent's life and amends its configuration.

Run as a script by a bare interpreter, so it knows the standard library only. Why it is needed: Ray Serve starts HAProxy
as a plain child, which outlives a killed parent; its template lets the statistics pages listen on every address of the
machine; and a call that names no application, or an unknown one, gets an answer that does not tell what there is.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys

PR_SET_PDEATHSIG = 1
HOST_VARIABLE = "SIMSERVICE_BIND_HOST"
PROGRAM_VARIABLE = "SIMSERVICE_HAPROXY_PROGRAM"
TLS_VARIABLE = "SIMSERVICE_HAPROXY_TLS"
SOCKET_VARIABLE = "SIMSERVICE_HAPROXY_SOCKET"
STREAMS_VARIABLE = "SIMSERVICE_STREAMS_FOLDER"
PLAY = "/simservice.protocol.v1.WorldService/Play"
INNER_SOCKET = "front"
HTTP1_RULES = (  # for streams alone, and never for a web page: browsers send no TE for any
    "timeout http-request 10s",
    # Not req.ver, which is what a request calls itself: "HTTP/2.0" in plain text as well.
    'http-request return status 415 content-type text/plain string "gRPC is spoken here" unless { fc_http_major 2 } or'
    f" {{ method POST }} {{ path {PLAY} }} {{ req.hdr(te) -m str trailers }}"
    " { req.hdr(content-type) -m beg application/grpc }",
)


def restrict(text: str, host: str) -> str:
    """The configuration with `host` for listeners that have no address."""
    return re.sub(r"^(\s*bind )\*?(:\d+)", rf"\g<1>{host}\g<2>", text, flags=re.MULTILINE)


def lead_strays(text: str) -> str:
    """The configuration with gRPC calls of no or an unknown application led to the first one.

    Any world's replica can list all worlds, and says which there are when it is asked for one that is not there.
    """
    head, frontend, rest = text.partition("\nfrontend grpc_frontend\n")
    section, end, tail = rest.partition("\nbackend ")
    backends = re.findall(r"^\s*use_backend (\S+) if is_\1$", section, flags=re.MULTILINE)
    if not backends:
        return text
    unknown = " ".join(f"!is_{backend}" for backend in backends)
    rules = f"    http-request del-header application if {unknown}\n    default_backend {backends[0]}"
    section = re.sub(r"^\s*default_backend \S+$", rules, section, flags=re.MULTILINE)
    return head + frontend + section + end + tail


def lock_front(text: str, tls: str, socket: str, http1: bool = False) -> str:
    """The configuration with `tls` on the front door, and a plaintext one for this user alone at `socket`.

    With `http1` plaintext doors take sessions' streams by HTTP/1.1 too: HAProxy tells it from HTTP/2 by a connection's
    first bytes.
    """
    plain = "" if http1 else " proto h2"
    inner = f"    bind unix@{socket} mode 600{plain}\n" if socket else ""
    rules = "".join(f"    {rule}\n" for rule in HTTP1_RULES) if http1 else ""

    def locked(found: re.Match[str]) -> str:
        front = f"{found[2]} {tls}" if tls else f"{found[2]}{plain}"
        return f"{found[1]}{front}\n{inner}{rules}"

    return re.sub(r"(frontend grpc_frontend\n(?:    #.*\n)*)(    bind \S+) proto h2\n", locked, text)


def hide_http(text: str, host: str) -> str:
    """The configuration with Serve's HTTP door, which nobody needs, at `host`: TLS and tokens do not hold there."""
    return re.sub(r"(frontend http_frontend\n    bind )\S+?(:\d+)\n", rf"\g<1>{host}\g<2>\n", text)


def near_streams(text: str, folder: str) -> str:
    """The configuration with the streams of sessions led to sockets in `folder`, named after the replicas' ports.

    There they are HTTP/1.1 (see chunked.py); all other calls, and health, stay with the replicas' gRPC servers. Serve's
    own proxy, the last resort of a world without replicas, gets streams as before.
    """
    head, frontend, rest = text.partition("\nfrontend grpc_frontend\n")
    section, end, tail = rest.partition("\nbackend ")
    backends = re.findall(r"^\s*use_backend (\S+) if is_\1$", section, flags=re.MULTILINE)
    if not backends:
        return text
    near = []
    for name in backends:
        found = re.search(rf"^backend {re.escape(name)}\n(?:[ #].*\n)*", end + tail, flags=re.MULTILINE)
        assert found is not None, f"HAProxy's configuration leads to {name}, which it does not have"
        lines = [f"backend {name}-play", "    mode http", "    log global"]
        lines += re.findall(r"^    timeout .*$", found[0], flags=re.MULTILINE)
        for server, where, port, backup in re.findall(
            r"^    server (\S+) (\S+):(\d+) proto h2 check.*?( backup)?$", found[0], flags=re.MULTILINE
        ):
            place = f"{where}:{port} proto h2" if backup else f"unix@{folder}/{port}"
            lines.append(f"    server {server} {place} track {name}/{server}{backup}")
        near.append("\n".join(lines) + "\n")
        section = re.sub(
            rf"^(\s*)use_backend {re.escape(name)} if is_{re.escape(name)}$",
            rf"\1use_backend {name}-play if is_play is_{name}\n\g<0>",
            section,
            flags=re.MULTILINE,
        )
    first = rf"\1use_backend {backends[0]}-play if is_play\n\g<0>"
    section = re.sub(r"^(\s*)default_backend \S+$", first, section, flags=re.MULTILINE)
    section = re.sub(r"^(\s*)use_backend", rf"\1acl is_play path {PLAY}\n\g<0>", section, count=1, flags=re.MULTILINE)
    return head + frontend + section + "\n" + "".join(near) + end.removeprefix("\n") + tail


def main(arguments: list[str]) -> None:
    """Becomes HAProxy."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if "-f" in arguments:
        path = arguments[arguments.index("-f") + 1]
        with open(path, encoding="utf-8") as file:
            text = lead_strays(file.read())
        folder = os.environ.get(STREAMS_VARIABLE)
        text = near_streams(text, folder) if folder else text
        tls, inner = os.environ.get(TLS_VARIABLE, ""), os.environ.get(SOCKET_VARIABLE, "")
        text = lock_front(text, tls, inner, http1=bool(folder))
        host = os.environ.get(HOST_VARIABLE)
        with open(path, "w", encoding="utf-8") as file:
            file.write(restrict(hide_http(text, host), host) if host else text)
    program = os.environ[PROGRAM_VARIABLE]
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
