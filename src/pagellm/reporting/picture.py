"""A placeholder picture for an item, always the same for the same item. Takes its words, returns a drawing's name and colors.

Nothing is fetched and no picture is stored: the drawings are symbols of `templates/pictures.svg`, the colors come from color
words or from hashes of the brand and of the item. Words only choose among fixed symbols, so hostile text can do no harm.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pagellm.reporting.view import Card

_DEPARTMENTS = {
    "care": {
        "bottle": "shampoo conditioner lotion cleanser wash toner mousse oil rinse sunscreen spray hair hairspray mist care",
        "jar": "cream creme moisturizer balm butter mask scrub gel wax jelly paste pomade skin salt",
        "tube": "tube primer toothpaste sunblock concealer foundation bb",
        "serum": "serum essence drop dropper tincture extract retinol vitamin",
        "lipstick": "lipstick lip lipgloss gloss chapstick",
        "palette": "makeup palette eyeshadow shadow blush powder bronzer compact highlighter",
        "mascara": "mascara eyeliner liner brow lash eyelash",
        "brush": "brush comb hairbrush applicator sponge razor",
        "perfume": "perfume fragrance cologne parfum toilette edt edp scent beauty",
        "soap": "soap bath body bubble bar",
        "dryer": "dryer iron curler straightener blower",
        "polish": "polish nail lacquer enamel",
        "diffuser": "diffuser incense reed",
    },
    "kitchen": {
        "teapot": "teapot kettle pitcher carafe tea",
        "cup": "cup mug coffee dripper espresso grinder drink",
        "pan": "kitchen cookware pan saucepan skillet casserole wok pot tin baking",
        "plate": "plate dish tableware platter bowl basket serving",
        "apple": "grocery food apple fruit snack gourmet",
    },
    "living": {
        "lamp": "lamp lighting light pendant",
        "candle": "candle tealight wick",
        "cushion": "cushion pillow pad seat living",
        "blanket": "blanket throw swaddle towel quilt",
        "frame": "mirror frame print poster decor picture art",
        "clock": "clock",
        "chair": "furniture chair sofa table stool bed",
    },
    "garden": {
        "plant": "garden plant planter pot flower window bed tree herb",
        "trowel": "trowel fork spade rake knife tool",
        "packet": "seed bulb wildflower mix kit",
        "scissors": "shear pruner",
        "lantern": "lantern outdoor",
        "chair": "chair hammock",
        "blanket": "blanket",
    },
    "pets": {
        "bone": "dog leash harness chew",
        "cattree": "cat tree scratching tunnel wand",
        "fish": "aquarium tank filter gravel wood root",
        "birdhouse": "bird feeder nest",
        "bowl": "pet bowl kitten puppy",
    },
    "sports": {
        "shirt": "vest jersey legging",
        "mat": "yoga mat bolster block strap pilates",
        "bell": "bike bell cycling bicycle",
        "tent": "camping tent stove camp sleeping torch",
        "bag": "pannier bag",
        "shoe": "running sock",
        "ball": "sport ball soccer football basketball fitness tennis headband belt",
    },
    "paper": {
        "book": "book novel guide diary fiction history comic magazine notebook journal planner sketchbook stories",
        "pen": "pen pencil marker ink stationery",
        "organizer": "organizer tray desk stand office",
        "paint": "watercolor paint craft linocut embroidery origami color",
        "card": "giftcard gift voucher egift card",
    },
    "kids": {
        "tower": "stacking tower train sorter puzzle wooden block",
        "dice": "board dice memory strategy game card",
        "bear": "kid baby doll plush bear toy mobile crib nursery night",
        "book": "book stories",
        "blanket": "blanket swaddle",
    },
    "media": {
        "controller": "video gaming controller xbox playstation wii nintendo console gamepad gamecube ps game",
        "headphones": "headphone headset earbud audio music speaker earphone sound",
        "phone": "phone smartphone tablet charger cell",
        "laptop": "laptop computer electronics monitor keyboard software",
        "camera": "camera photo lens film",
        "wrench": "hardware wrench drill hammer automotive screwdriver industrial",
    },
    "wear": {
        "shirt": "shirt clothing apparel fashion tee jacket coat dress sweater hoodie blouse",
        "shoe": "shoe sneaker boot footwear sandal runner trainer",
        "bag": "backpack luggage tote purse handbag wallet",
        "watch": "watch jewelry ring bracelet necklace",
    },
}
"""Words by symbol by department. A word that stands in several means the first one, unless the category names another."""

_COLORS = {
    "black charcoal onyx graphite": (220, 8),
    "gray grey silver steel stone slate": (210, 10),
    "white ivory cream natural": (45, 22),
    "sand beige tan khaki": (36, 32),
    "brown chocolate walnut coffee": (24, 36),
    "red crimson ruby cherry": (354, 52),
    "rust copper terracotta orange coral": (17, 52),
    "yellow gold mustard honey lemon": (42, 58),
    "green forest olive emerald": (145, 34),
    "sage mint moss": (118, 20),
    "teal turquoise aqua": (178, 40),
    "blue cobalt denim": (214, 48),
    "navy midnight": (224, 46),
    "sky ice": (200, 50),
    "purple plum violet": (308, 26),
    "lavender lilac": (268, 34),
    "pink blush rose": (345, 42),
}
_COLOR_OF = {word: color for words, color in _COLORS.items() for word in words.split()}
_PLAIN_SATURATION = 38  # percent, where no word names a color

_SYMBOL_OF = {
    (department, word): symbol
    for department, symbols in _DEPARTMENTS.items()
    for symbol, words in symbols.items()
    for word in words.split()
}
_HOME_OF = {word: department for department, word in reversed(_SYMBOL_OF)}  # of each word, the department that has it first


@dataclass(frozen=True, slots=True)
class Picture:
    """What a template needs to draw one placeholder."""

    symbol: str  # id in templates/pictures.svg without its "p-"
    hue: int  # degrees, of the drawing
    saturation: int  # percent, of the drawing
    second: int  # degrees, of accents and the far end of the backdrop
    angle: int  # degrees, of the backdrop
    initials: str  # two letters on the plain box, where no word tells what the item is


def picture(card: Card) -> Picture:
    """The placeholder of an item: the symbol by its words, the color by its name, else its brand; the variation by its id."""
    by_item = _hash(card.item_id)
    packaging = ((_hash(card.brand) if card.brand else by_item // 7) + by_item % 41 - 20) % 360
    named = (_COLOR_OF[word] for word in reversed(_words(card.title)) if word in _COLOR_OF)
    hue, saturation = next(named, (packaging, _PLAIN_SATURATION))
    symbol = _symbol(card)
    return Picture(
        symbol=symbol,
        hue=hue,
        saturation=saturation,
        second=(hue + 30 + by_item // 100 % 120) % 360,
        angle=115 + by_item // 12_000 % 90,
        initials=_initials(card.brand or card.title) if symbol == "box" else "",
    )


def _symbol(card: Card) -> str:
    """By the title's last telling word before the first comma, else anywhere in it, else by the category.

    Where the category names a department, title words of other departments do not count: a "light" cream is no lamp.
    """
    home = next((_HOME_OF[word] for word in _words(card.category) if word in _HOME_OF), "")
    title = _words(card.title.partition(",")[0])[::-1] + _words(card.title)[::-1]
    leaf_first = [word for part in reversed(card.category.split("›")) for word in _words(part)]
    found = (_SYMBOL_OF.get((home or _HOME_OF.get(word, ""), word)) for word in title + leaf_first)
    return next(filter(None, found), "box")


def _words(text: str) -> list[str]:
    """Lower-case words in the singular, roughly."""
    return [
        word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word
        for word in re.findall(r"[a-z]+", text.lower())
    ]


def _initials(text: str) -> str:
    """First letters of the first two words."""
    words = re.findall(r"\w+", text)
    return "".join(word[0] for word in words[:2]).upper()[:2]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=6).digest(), "big")
