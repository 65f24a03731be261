"""What the fuzzer has to know of this API beyond its description.

1. Requests may ask for what one node in its time cannot give: an answer within a millisecond, the word of five nodes, a revision of
   the future. The honest answers are 503 and 504, and both are described; they are taken out so that every 5xx that is left is a
   finding. For the same reason calls are given more time than they have unless it is given: the disk may be busy with other things.
2. On a stream whose filter or owner was drawn at random nothing ever comes. Watches are widened, and most inboxes are those of the owner
   that the writer writes to, so that there are events to hold against the description.
"""

import itertools

import schemathesis
from schemathesis.generation import GenerationMode

TIMEOUT_MS = 10_000
_inboxes = itertools.count()


def _number(value):
    try:
        return int(str(value))
    except ValueError:
        return None


def _is_fine(case):
    return case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.path.endswith("/watch"):
        query = case.query or {}
        prefixes = query.get("name_prefix", [])
        case.query = {**query, "name_prefix": [*(prefixes if isinstance(prefixes, list) else [prefixes]), ""]}
    if _is_fine(case) and case.operation.path.endswith("/inbox/{owner}") and next(_inboxes) % 8 != 0:
        case.path_parameters["owner"] = "reader"
    query = case.query
    if not query:
        return
    for name, least, most, instead in [("timeout_ms", 1, 30_000, TIMEOUT_MS), ("w", 1, 1_000, 1), ("r", 1, 1_000, 1)]:
        number = _number(query.get(name))
        # What is out of bounds stays: it has to be refused.
        if number is not None and least <= number <= most:
            query[name] = instead
    if _number(query.get("min_revision")) is not None:
        query["min_revision"] = "0"
