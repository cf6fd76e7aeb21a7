"""Which of the notebook's backends is what, packed so that nobody reads it by accident.

This is no lock: who unpacks it has taken the backends apart instead of testing them, and learns nothing. Points for
finding faults and for small cases are given on other backends, drawn for each grading, which run where no learner's code does.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping

from course.closed_backends.engine import Spec

_SEALED = """
c-nPR(Qd;a4E&WU&*Nd;G)?=JsftW+5*mV$O~kTk|2{%X)vfCT65zYD&-PaX14L}zcJGaL)J?5k+j40hcFl}Dpi$N<4T5T)|DN`T
9MH(CE2I%z-zK!f7-gg6^SB{8(%@o&1TY587G#uV&Vo!yD$p$cls?xnBA<Zx5gC*?iWeNtIcWh(a5hS-p_>x0DQN>GWJSG-iPXTf
gbT4h5}QJdY$N&WDhH2N<X<C+$q!08aJapT?GZlF-4vS`LddSD?*(I(w%*u*?iO5ON04y#WqoUC(GH7f=2KEK+CG*v1wEk)e|p+m
mZ&04=tYrt>xSLGZfFPGjdw<S7XCGg8Ti&6BNzpu{Ag+$D1f^oTcyO+t-98#(Y#G{Ij+N}K5bJhrt;Uz^Wpmkl#SAV
"""


def seal(specs: Mapping[str, Spec]) -> str:
    """The text that `unseal` reads."""
    plain = json.dumps({name: [spec.base, spec.variant, spec.amount] for name, spec in specs.items()})
    return base64.b85encode(zlib.compress(plain.encode(), 9)).decode()


def unseal() -> dict[str, Spec]:
    """What each of the notebook's backends is, by name."""
    plain = zlib.decompress(base64.b85decode("".join(_SEALED.split())))
    return {name: Spec(*parts) for name, parts in json.loads(plain).items()}
