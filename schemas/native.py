"""The compiled part (native/), where it was built. Pure.

`enabled` is asked at each batch: a test that sets it to False sends everything the way of the Python. Events that the
compiled part has made stay as they are.
"""

try:
    from schemas import _native as module
except ImportError:  # no compiler was there, or no headers of this Python
    module = None  # type: ignore[assignment]  # and every use of it asks first

__all__ = ["enabled", "module"]

enabled = bool(module)
