"""What shows a console to a person.

`Window`
    a pygame window: the live screen, keyboard by scancode, mouse
`Notice`
    what it says while there is nothing to show
`require_display`
    whether there is a display to open it on
"""
