"""The journal: what was opened, run, copied and switched, by whom, when, and with what result.

`Entry`
    one line of it
`JournalFile`
    where the lines lie: appending, rotating, reading, following

It holds no contents: no output, no keystrokes, no clipboards, no passwords. What is noted, and
when, is the session layer's business (`vmconnect.session.journal`).
"""

from vmconnect.journal.entry import Entry
from vmconnect.journal.file import JournalFile

__all__ = ["Entry", "JournalFile"]
