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
c-nQ5-
A=<W42551>NUAw+#p^Bp~`KXpEZpmJ5?x%cPGu(2^hPGl*HdT_DMcFu#mBPIlOj5pmFMlwQrm5;n2;<7PazG4IrqF_3r8TRtp328
k)#KFnvL9U6xH!*W*TvG(gA=NuV|At;i_LTn(9u?4VxaxqY3(A)i5f&kRZe<tvACZQ4Ld!Ds0Q7^ecPTiZkhS&>n>kg`lmx(dySS
T|v2pDF&F(nj<m{{|^c(JC1s;C61Y9eiN88MZK_R8x^Lf_b<0QF}{w2i~z0NV??mvDdT=0h?*nQ&Hl)$*oPJCk*M&n;OrORi+7}D
2id-*yHm?2jJ1&`Pz%|udkSaZ__b?Rv;=my*~pb2zP9o)z>%JNV`%
"""


def seal(specs: Mapping[str, Spec]) -> str:
    """The text that `unseal` reads."""
    plain = json.dumps({name: [spec.base, spec.variant, spec.amount] for name, spec in specs.items()})
    return base64.b85encode(zlib.compress(plain.encode(), 9)).decode()


def unseal() -> dict[str, Spec]:
    """What each of the notebook's backends is, by name."""
    plain = zlib.decompress(base64.b85decode("".join(_SEALED.split())))
    return {name: Spec(*parts) for name, parts in json.loads(plain).items()}
