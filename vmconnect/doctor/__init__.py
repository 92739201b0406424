"""The doctor: which link of a chain is broken, and what mends it.

`Check`, `Verdict`, `Finding`, `examine`
    what is tried in which order, and what comes of it (``check``)
`CHAIN`, `Patient`
    the links from a target to a picture and to a command in the guest (``chain``); one target
`HOST`, `Host`
    what this host needs (``host``)

It goes the ways of the console and of the guest channel (`vmconnect.session`), so that it breaks
where they do.
"""

from vmconnect.doctor.chain import CHAIN
from vmconnect.doctor.check import Check, Finding, Outcome, Verdict, examine
from vmconnect.doctor.host import HOST, Host
from vmconnect.doctor.patient import Patient

__all__ = [
    "CHAIN",
    "HOST",
    "Check",
    "Finding",
    "Host",
    "Outcome",
    "Patient",
    "Verdict",
    "examine",
]
