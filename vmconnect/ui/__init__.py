"""What shows a console to a person.

`Window`
    a pygame window: the live screen, keyboard by scancode, mouse
`require_display`
    whether there is a display to open it on
"""
