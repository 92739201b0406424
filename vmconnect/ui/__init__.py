"""What shows a console or a shell to a person.

`Window`
    a pygame window: the live screen, keyboard by scancode, mouse
`Notice`
    what it says while there is nothing to show
`require_display`
    whether there is a display to open it on
`ShellSession`, `ShellScreen`
    a shell in a guest, on the terminal that we run on
`RawTerminal`
    that terminal: its size, its modes, and how they are put back
`EscapeParser`, `ScreenState`
    what is typed for us, and what programs leave changed on the screen; both sans-I/O
"""
