"""nginx in front of a server, with a folder of routes for each of its limits, as a program. It ends with SIGTERM."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log stderr error;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    limit_conn_zone $server_port zone=one:1m;
    limit_req_zone $server_port zone=rate:1m rate=6r/m;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 20k;
        location / {{ proxy_pass {upstream}/; }}
        location /one/ {{ limit_conn one 1; proxy_pass {upstream}/; }}
        location /rate/ {{ limit_req zone=rate; proxy_pass {upstream}/; }}
        location /rate429/ {{ limit_req zone=rate; limit_req_status 429; proxy_pass {upstream}/; }}
        location /hasty/ {{ proxy_read_timeout 50ms; proxy_pass {upstream}/; }}
        location /gone/ {{ proxy_pass http://127.0.0.1:9/; }}
        location /moved/ {{ return 301 /; }}
        location /closed/ {{ return 444; }}
        location /forbidden/ {{ deny all; proxy_pass {upstream}/; }}
    }}
}}
"""

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--upstream", required=True)
given = parser.parse_args()

folder = Path(tempfile.gettempdir()) / "servers/nginx"
folder.mkdir(parents=True, exist_ok=True)
(folder / "conf").write_text(CONFIGURATION.format(folder=folder, port=given.port, upstream=given.upstream))
os.execlp("nginx", "nginx", "-p", str(folder), "-c", str(folder / "conf"))
