"""The compiled part (native/), where it was built. Pure.

`enabled` is asked at each batch: a test that sets it to False sends everything the way of the Python. Events that the
compiled part has made stay as they are. `missing` says in a sentence that it is not there, and why.
"""

try:
    from schemas import _native as module
except ImportError as e:  # no compiler was there, or no headers of this Python
    module = None  # type: ignore[assignment]  # and every use of it asks first
    missing = f"the compiled part is missing, everything is several times slower: {e}"
else:
    missing = ""

__all__ = ["enabled", "missing", "module"]

enabled = bool(module)
