"""Everything a planted clip may show and how it is named. An independent renderer needs this file and no other.

Lengths are in pixels of the 64 x 64 frame; a frame drawn larger scales them. Colours are RGB 0-255.
"""

FRAME_PX = 64
GRID = 4  # the frame is GRID x GRID cells, one pooled visual token each
CELL_PX = FRAME_PX // GRID

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "star", "bar")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KINDS = SHAPES + DIGITS

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 30, 30),
    "green": (30, 200, 50),
    "blue": (50, 90, 255),
    "yellow": (245, 225, 30),
    "cyan": (30, 220, 225),
    "magenta": (235, 50, 215),
    "orange": (255, 140, 20),
    "white": (245, 245, 245),
}

# Side of the square a thing fills. A large thing covers 2 x 2 cells, the others lie in one.
SIZES: dict[str, int] = {"small": 8, "medium": 14, "large": 28}

# Rooms are dark so that every colour of a thing stands out; a texture alternates the tone with a lighter one.
TONES: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 12),
    "navy": (14, 18, 78),
    "maroon": (84, 12, 22),
    "forest": (10, 66, 24),
    "olive": (70, 68, 12),
    "teal": (8, 70, 76),
    "purple": (62, 18, 84),
    "grey": (72, 72, 72),
}
TEXTURES = ("plain", "striped", "barred", "dotted")  # striped: horizontal lines, barred: vertical lines
TEXTURE_LIFT = 28  # added to each channel of the tone on lines and dots
TEXTURE_PERIOD_PX = 8  # lines are half a period wide; dots are 2 px in radius, one a period each way

CLUTTER_GREYS = (105, 125, 145)  # small grey shapes nobody asks about

DIRECTIONS: dict[str, tuple[int, int]] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}  # row, col
COUNTS = ("one", "two", "three", "four")
QUARTERS = ("first", "second", "third", "fourth")
