"""Has something to tell on every stream while the fuzzer reads: changes of every kind, and messages to the owner `reader`.

Runs until it is killed. Answers are not looked at: that is what the fuzzer is for.
"""

import http.client
import itertools
import json
import sys
import time
from urllib.parse import urlsplit

ROUND_SECONDS = 0.1


def calls(mode, number):
    """One round: what stands for good, and what comes, changes and goes."""
    lease = f"fuzzed-{number}"
    name, member = f"/v1/{mode}/names/fuzzed", f"/v1/{mode}/groups/fuzzed/members/m"
    yield "PUT", f"/v1/{mode}/names/read", {"owner": "reader"}
    yield "PUT", f"/v1/{mode}/groups/read/members/reader", {}
    yield "POST", f"/v1/{mode}/leases", {"ttl_ms": 10_000, "lease": lease}
    yield "PUT", name, {"owner": "a", "lease": lease}
    yield "PUT", name, {"owner": "a", "lease": lease, "meta": {"number": number}}
    yield "PUT", f"{name}?takeover=true", {"owner": "b"}
    yield "PUT", member, {"lease": lease}
    yield "DELETE", f"/v1/{mode}/leases/{lease}", None
    yield "PUT", member, {}
    yield "DELETE", member, None
    yield "DELETE", name, None
    yield "POST", f"/v1/{mode}/names/read/messages", {"message": {"number": number, "text": "\u2028\n"}}
    yield "POST", f"/v1/{mode}/groups/read/messages", {"message": None}


def main(url):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    for number in itertools.count():
        for mode in ["cp", "ap"]:
            for method, path, body in calls(mode, number):
                try:
                    connection.request(method, path, None if body is None else json.dumps(body))
                    connection.getresponse().read()
                except (OSError, http.client.HTTPException):
                    connection.close()
        time.sleep(ROUND_SECONDS)


main(sys.argv[1])
