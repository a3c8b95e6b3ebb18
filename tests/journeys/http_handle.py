"""A web server hands out handles by HTTP; another program gets the arrays by them, once each."""
# methods: none
# prints: 499999500000.0
# prints: a second time: StaleHandleError

import http.server
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import shared_numpy as snp

CLIENT = """
import sys, urllib.request
import shared_numpy as snp
from shared_numpy.errors import StaleHandleError
handle = urllib.request.urlopen(sys.argv[1]).read()
print(snp.receive(handle)["image"].sum())
try:
    snp.receive(handle)
except StaleHandleError as error:
    print("a second time:", type(error).__name__)
"""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        handle = snp.send({"image": np.arange(1000000.0)})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(handle)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = "http://127.0.0.1:%d/" % server.server_port
    subprocess.check_call([sys.executable, "-c", CLIENT, url])
    server.shutdown()
    thread.join()
    server.server_close()
