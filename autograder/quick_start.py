"""Imported first by a process of ours that reads notebooks: it then starts a second of processor time earlier.

jsonschema, which validates them, looks whether the library `rfc3987_syntax` is there, and that one builds a grammar of
internationalised addresses when it is imported. No notebook has such an address; without the library jsonschema goes on.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # from here on, importing it fails
