"""What the fuzzer has to know of this API beyond its description.

1. Watches and inboxes do not end by themselves: their first bytes are taken, and then they are hung up on.
2. Requests may ask for what one node in its time cannot give: an answer within a millisecond, the word of five nodes, a revision of
   the future. The honest answers are 503 and 504, and both are described; they are taken out so that every 5xx that is left is a
   finding.
"""

from urllib.parse import urlsplit

import requests
import schemathesis

_send = requests.Session.send


def _send_and_hang_up(self, request, **kwargs):
    path = urlsplit(request.url).path
    if not (path.endswith("/watch") or "/inbox/" in path):
        return _send(self, request, **kwargs)
    response = _send(self, request, **{**kwargs, "stream": True})
    if response.status_code == 200:
        response._content = response.raw.read1(64)
        response._content_consumed = True
        response.close()
    else:
        response.content
    return response


requests.Session.send = _send_and_hang_up


def _number(value):
    try:
        return int(str(value))
    except ValueError:
        return None


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query
    if not query:
        return
    for name, least, most, instead in [("timeout_ms", 1, 30_000, 5_000), ("w", 1, 1_000, 1), ("r", 1, 1_000, 1)]:
        number = _number(query.get(name))
        # What is out of bounds stays: it has to be refused.
        if number is not None and least <= number <= most:
            query[name] = instead
    if _number(query.get("min_revision")) is not None:
        query["min_revision"] = "0"
